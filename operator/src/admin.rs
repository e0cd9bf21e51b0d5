//! The admin port: `/livez` (the loops turn), `/readyz` (the caches are filled), `/metrics`.

use std::sync::Arc;

use axum::{
    Router, extract::State, http::StatusCode, http::header::CONTENT_TYPE, response::IntoResponse, routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{caches::Caches, metrics::Metrics, progress::Progress};

/// What the admin port tells.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Of `/metrics`.
    pub metrics: Metrics,
    /// Of `/livez`.
    pub progress: Progress,
    /// Of `/readyz`. A replica that does not lead is ready too.
    pub caches: Caches,
}

/// The routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(admin))
}

/// Serves until `stop`.
///
/// # Errors
///
/// If the socket fails.
pub async fn serve(listener: TcpListener, admin: Admin, stop: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, router(admin)).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn livez(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    let stale = admin.progress.stale();
    if stale.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("no progress: {}\n", stale.join(", ")))
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    if admin.caches.is_synced() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let names = admin.caches.unsynced().join(" ");
    (StatusCode::SERVICE_UNAVAILABLE, format!("caches that are not filled yet: {names}\n"))
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    match admin.metrics.text() {
        Ok(text) => {
            (StatusCode::OK, [(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn get(admin: &Admin, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(admin.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn tells_life_and_readiness() {
        let admin = Admin { metrics: Metrics::default(), progress: Progress::default(), caches: Caches::default() };
        assert_eq!(get(&admin, "/livez").await.0, StatusCode::OK);
        let (status, text) = get(&admin, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("functions") && text.contains("pods"), "{text}");
        assert!(get(&admin, "/metrics").await.1.contains("rouse_operator_build_info"));
        admin.progress.reconciler.now();
        tokio::time::advance(crate::progress::STALE * 2).await;
        assert_eq!(
            get(&admin, "/livez").await,
            (StatusCode::SERVICE_UNAVAILABLE, "no progress: reconciler\n".to_owned())
        );
    }

    #[tokio::test]
    async fn ready_when_every_cache_is_filled() {
        use kube::runtime::watcher::Event::InitDone;
        let admin = Admin { metrics: Metrics::default(), progress: Progress::default(), caches: Caches::default() };
        let Caches { functions, revisions, deployments, services, pods, slices, ingresses, configs: _ } = &admin.caches;
        ingresses.apply(kube::runtime::watcher::Event::InitDone);
        functions.apply(InitDone);
        revisions.apply(InitDone);
        deployments.apply(InitDone);
        services.apply(InitDone);
        pods.apply(InitDone);
        assert_eq!(get(&admin, "/readyz").await.1, "caches that are not filled yet: endpointslices\n");
        slices.apply(InitDone);
        assert_eq!(get(&admin, "/readyz").await.0, StatusCode::OK);
    }
}
