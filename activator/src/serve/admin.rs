//! Admin endpoints: health, metrics and the demand stream.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{StreamExt as _, stream};
use tokio::{net::TcpListener, sync::watch};

use super::{
    admin_server::{self, Client},
    readers::{Readers, Unauthorized},
};
use crate::{
    demand::{Frames, Publisher},
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
    pub publisher: Arc<Publisher>,
    /// Who may read it.
    pub readers: Arc<Readers>,
    /// Whether the caches are synced.
    pub synced: watch::Receiver<Synced>,
    /// Age of the watch of pods.
    pub pods_watch: Arc<WatchAge>,
    /// Set while this process is shutting down.
    pub terminating: Arc<AtomicBool>,
}

/// Serves the admin endpoints until it is dropped. All of them are read-only.
pub async fn serve(socket: TcpListener, admin: Admin) {
    let router = health(admin.clone())
        .merge(Router::new().route("/metrics", get(metrics)).route("/v1/demand", get(demand)).with_state(admin));
    admin_server::serve(socket, router).await;
}

/// Serves the health endpoints alone until it is dropped.
pub async fn serve_health(socket: TcpListener, admin: Admin) {
    admin_server::serve(socket, health(admin)).await;
}

fn health(admin: Admin) -> Router {
    Router::new().route("/livez", get(async || "ok\n")).route("/readyz", get(ready)).with_state(admin)
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

async fn demand(State(admin): State<Admin>, Extension(client): Extension<Client>, headers: HeaderMap) -> Response {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let permit = match admin.readers.admit(client.address, authorization).await {
        Ok(permit) => permit,
        Err(rejected) => return reject(client.address, &rejected),
    };
    let frames = Frames::new(admin.publisher);
    let pin = Pin::new(client.pinned);
    // Pulled by the connection: a frame is taken when the previous one has been sent.
    let lines = stream::unfold((frames, permit, pin), |(mut frames, permit, pin)| async {
        let parts = frames.next().await?;
        Some((stream::iter(parts.map(Ok::<_, Infallible>)), (frames, permit, pin)))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines.flatten())).into_response()
}

fn reject(client: IpAddr, rejected: &Unauthorized) -> Response {
    tracing::debug!(%client, ?rejected, "Rejected a reader of the demand stream");
    match rejected {
        Unauthorized::NotAllowed => {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "not allowed\n").into_response()
        }
        Unauthorized::TooMany => {
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")], "too many readers\n").into_response()
        }
        Unauthorized::Unknown(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("the token was not reviewed: {why}\n")).into_response()
        }
    }
}

/// Keeps a connection from being closed for another one.
struct Pin(Arc<AtomicBool>);

impl Pin {
    fn new(pinned: Arc<AtomicBool>) -> Self {
        pinned.store(true, Ordering::Relaxed);
        Self(pinned)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Ledger;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_process_whose_watch_of_pods_is_broken_is_not_ready() {
        let ledger = Ledger::new();
        let (_sender, synced) = watch::channel(Synced { functions: true, pods: true });
        let admin = Admin {
            metrics: Metrics::new(ledger.clone()),
            publisher: Publisher::new(ledger, "p/1".into()),
            readers: Arc::new(Readers::loopback()),
            synced,
            pods_watch: Arc::default(),
            terminating: Arc::default(),
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
