//! Admin endpoints: health, metrics and the demand stream.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::stream;
use tokio::sync::watch;

use crate::{
    demand::{Frames, Ledger},
    endpoints::WatchAge,
    metrics::Metrics,
    route::Synced,
};

/// State of the admin endpoints.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Prometheus metrics.
    pub metrics: Arc<Metrics>,
    /// Source of the demand stream.
    pub ledger: Arc<Ledger>,
    /// Whether the caches are synced.
    pub synced: watch::Receiver<Synced>,
    /// Age of the watch of pods.
    pub pods_watch: Arc<WatchAge>,
    /// Set while this process is shutting down.
    pub terminating: Arc<AtomicBool>,
    /// Identity of this process in the demand stream.
    pub process: Arc<str>,
}

/// Creates the admin endpoints. All of them are read-only.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/demand", get(demand))
        .with_state(admin)
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let synced = *admin.synced.borrow();
    if admin.terminating.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned())
    } else if !synced.all() {
        let Synced { functions, pods } = synced;
        (StatusCode::SERVICE_UNAVAILABLE, format!("caches not synced: functions {functions}, pods {pods}\n"))
    } else if admin.pods_watch.is_expired() {
        let age = admin.pods_watch.get().unwrap_or_default().as_secs();
        (StatusCode::SERVICE_UNAVAILABLE, format!("watch of pods: API server not heard for {age}s\n"))
    } else {
        (StatusCode::OK, "ok\n".to_owned())
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.encode() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "Failed to encode metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn demand(State(admin): State<Admin>) -> Response {
    let frames = Frames::new(admin.ledger, admin.process);
    // Pulled by the connection: a frame is made when the previous one has been sent.
    let lines = stream::unfold(frames, |mut frames| async {
        match frames.next().await {
            Ok(line) => Some((Ok::<_, Infallible>(line), frames)),
            Err(error) => {
                tracing::error!(%error, "Failed to encode a demand frame");
                None
            }
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_process_whose_watch_of_pods_is_broken_is_not_ready() {
        let ledger = Ledger::new();
        let (_sender, synced) = watch::channel(Synced { functions: true, pods: true });
        let admin = Admin {
            metrics: Metrics::new(ledger.clone()),
            ledger,
            synced,
            pods_watch: Arc::default(),
            terminating: Arc::default(),
            process: "p/1".into(),
        };
        admin.pods_watch.record();
        tokio::time::advance(Duration::from_secs(599)).await;
        assert_eq!(ready(State(admin.clone())).await.0, StatusCode::OK);
        tokio::time::advance(Duration::from_secs(1)).await;
        let (status, text) = ready(State(admin.clone())).await;
        assert_eq!(
            (status, text.as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "watch of pods: API server not heard for 600s\n")
        );
        admin.pods_watch.record();
        assert_eq!(ready(State(admin)).await.0, StatusCode::OK);
    }
}
