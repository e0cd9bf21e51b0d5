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
    } else if synced.all() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        let Synced { functions, pods } = synced;
        (StatusCode::SERVICE_UNAVAILABLE, format!("caches not synced: functions {functions}, pods {pods}\n"))
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
