//! Admin endpoints: `/livez` (loops make progress), `/readyz` (caches are synced), `/metrics`, and
//! `/debug/functions/{namespace}/{name}` (explains the scaling decisions for a Function).
//!
//! `/debug` tells of every tenant's functions, pods and load, so it responds over loopback only: `kubectl port-forward`
//! connects there, and the API server decides who may do that.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::{ConnectInfo, Path, State},
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
    scaler::{ExplainError, Explainer},
    telemetry::metrics::Metrics,
};

/// State that the admin endpoints serve.
#[derive(Clone, Debug)]
pub struct Admin {
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For `/livez`.
    pub progress: Progress,
    /// For `/readyz`. A replica that is not the leader is ready too.
    pub caches: Caches,
    /// For `/debug`.
    pub explainer: Explainer,
}

/// Returns the routes.
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
    let service = router(admin).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Binds the admin port. `[::]` is every address of both families, and every IPv4 address where the node has no IPv6.
///
/// # Errors
///
/// If the address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED => {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await.map_err(|_| error)?;
            tracing::info!(%address, "This node has no IPv6; listening on IPv4 only");
            Ok(listener)
        }
        bound => bound,
    }
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
    (StatusCode::SERVICE_UNAVAILABLE, format!("caches not synced: {names}\n"))
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
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    Path((namespace, name)): Path<(String, String)>,
) -> impl IntoResponse {
    let key = FunctionKey::new(namespace, name);
    let local = client.ip().to_canonical().is_loopback();
    let explained = local.then(|| admin.explainer.explain(&key));
    let Some(explained) = explained else {
        let detail = "This endpoint responds over loopback only: use kubectl port-forward.";
        let (status, type_, body) = problem(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail);
        return (status, [(CONTENT_TYPE, type_)], format!("{body:#}\n"));
    };
    let (status, type_, body) = match explained {
        Ok(explained) => (StatusCode::OK, "application/json", explained),
        Err(ExplainError::Unknown) => {
            let detail = format!("Function {key} does not exist or cannot be parsed.");
            problem(StatusCode::NOT_FOUND, "unknown-function", "Function not found", &detail)
        }
        Err(ExplainError::NotLeading) => {
            let detail =
                "This replica of the operator is not the leader. Send the request to the replica that holds the Lease.";
            problem(StatusCode::SERVICE_UNAVAILABLE, "not-leading", "Not the leader", detail)
        }
    };
    (status, [(CONTENT_TYPE, type_)], format!("{body:#}\n"))
}

/// Builds a problem response (RFC 9457).
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
        get_from(admin, path, [127, 0, 0, 1]).await
    }

    async fn get_from(admin: &Admin, path: &str, client: [u8; 4]) -> (StatusCode, String) {
        let mut request = Request::get(path).body(Body::empty()).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from((client, 1234))));
        let response = router(admin.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_and_readiness() {
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
    async fn ready_when_every_cache_is_synced() {
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
        assert_eq!(get(&admin, "/readyz").await.1, "caches not synced: endpointslices\n");
        slices.apply(InitDone);
        assert_eq!(get(&admin, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn reports_that_it_is_not_the_leader() {
        let (status, text) = get(&admin(), "/debug/functions/ns/f").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(problem["type"], "https://rouse.dev/problems/not-leading");
        assert_eq!(problem["status"], 503);
    }

    #[tokio::test]
    async fn decisions_are_explained_over_loopback_only() {
        let path = "/debug/functions/ns/f";
        assert_eq!(get_from(&admin(), path, [10, 0, 0, 7]).await.0, StatusCode::FORBIDDEN);
        assert_ne!(get_from(&admin(), path, [127, 0, 0, 1]).await.0, StatusCode::FORBIDDEN);
        assert_eq!(get_from(&admin(), "/livez", [10, 0, 0, 7]).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn every_address_includes_ipv4() {
        let listener = bind("[::]:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    }
}
