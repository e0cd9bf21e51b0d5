//! The admin port: `/livez` (the loops turn), `/readyz` (the caches are filled), `/metrics`, and
//! `/debug/functions/{namespace}/{name}` (why a function has as many pods as it has).

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    http::StatusCode,
    http::header::CONTENT_TYPE,
    response::IntoResponse,
    routing::get,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::{caches::Caches, key::FunctionKey},
    runtime::progress::Progress,
    scaler::{Explainer, NotExplained},
    telemetry::metrics::Metrics,
};

/// What the admin port tells.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Of `/metrics`.
    pub metrics: Metrics,
    /// Of `/livez`.
    pub progress: Progress,
    /// Of `/readyz`. A replica that does not lead is ready too.
    pub caches: Caches,
    /// Of `/debug`.
    pub explainer: Explainer,
}

/// The routes.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/debug/functions/{namespace}/{name}", get(explain))
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

async fn explain(
    State(admin): State<Arc<Admin>>,
    Path((namespace, name)): Path<(String, String)>,
) -> impl IntoResponse {
    let key = FunctionKey::new(namespace, name);
    let (status, type_, body) = match admin.explainer.explain(&key) {
        Ok(explained) => (StatusCode::OK, "application/json", explained),
        Err(NotExplained::Unknown) => {
            let detail = format!("There is no Function {key}, or it cannot be read.");
            problem(StatusCode::NOT_FOUND, "unknown-function", "No such function", &detail)
        }
        Err(NotExplained::NotLeading) => {
            let detail =
                "This replica of the operator does not lead, so it decides nothing. Ask the one that holds the Lease.";
            problem(StatusCode::SERVICE_UNAVAILABLE, "not-leading", "Another replica decides", detail)
        }
    };
    (status, [(CONTENT_TYPE, type_)], format!("{body:#}\n"))
}

/// A problem after RFC 9457.
fn problem(status: StatusCode, kind: &str, title: &str, detail: &str) -> (StatusCode, &'static str, serde_json::Value) {
    let type_ = format!("https://rouse.dev/problems/{kind}");
    let body = json!({"type": type_, "title": title, "status": status.as_u16(), "detail": detail});
    (status, "application/problem+json", body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    fn admin() -> Admin {
        let (metrics, progress, caches) = (Metrics::default(), Progress::default(), Caches::default());
        Admin { metrics, progress, caches, explainer: Explainer::default() }
    }

    async fn get(admin: &Admin, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router(admin.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn tells_life_and_readiness() {
        let admin = admin();
        assert_eq!(get(&admin, "/livez").await.0, StatusCode::OK);
        let (status, text) = get(&admin, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("functions") && text.contains("pods"), "{text}");
        assert!(get(&admin, "/metrics").await.1.contains("rouse_operator_build_info"));
        admin.progress.reconciler.now();
        tokio::time::advance(crate::runtime::progress::STALE * 2).await;
        assert_eq!(
            get(&admin, "/livez").await,
            (StatusCode::SERVICE_UNAVAILABLE, "no progress: reconciler\n".to_owned())
        );
    }

    #[tokio::test]
    async fn ready_when_every_cache_is_filled() {
        use kube::runtime::watcher::Event::InitDone;
        let admin = admin();
        let Caches { functions, revisions, deployments, services, pods, slices, ingresses, httproutes: _, configs: _ } =
            &admin.caches;
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

    #[tokio::test]
    async fn says_that_it_does_not_lead() {
        let (status, text) = get(&admin(), "/debug/functions/ns/f").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(problem["type"], "https://rouse.dev/problems/not-leading");
        assert_eq!(problem["status"], 503);
    }
}
