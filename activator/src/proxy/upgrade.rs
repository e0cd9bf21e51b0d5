//! Connections that change to another protocol: bytes both ways, from the 101 on and not before.

use std::time::Duration;

use http::{Response, StatusCode, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio_util::task::TaskTracker;

use crate::admit::Lease;

/// Bytes of each direction that are under way in a tunnel.
const BUFFER: usize = 8 << 10;

/// How long both sides may take to change over after the 101.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);

/// Whether a pod agreed to change to another protocol.
pub(super) fn agreed(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS && response.headers().contains_key(header::UPGRADE)
}

/// Connects both sides once the 101 has gone to the client. The request is in its pod until the tunnel ends.
pub(super) fn tunnel(tunnels: &TaskTracker, client: OnUpgrade, pod: OnUpgrade, lease: Lease) {
    tunnels.spawn(async move {
        let both = tokio::time::timeout(CHANGE_LIMIT, async { tokio::try_join!(client, pod) });
        match both.await {
            Ok(Ok((client, pod))) => carry(client, pod).await,
            Ok(Err(error)) => tracing::debug!(%error, "A connection did not change its protocol"),
            Err(_) => tracing::debug!("A connection did not change its protocol in time"),
        }
        drop(lease);
    });
}

async fn carry(client: Upgraded, pod: Upgraded) {
    let (mut client, mut pod) = (TokioIo::new(client), TokioIo::new(pod));
    // Each direction is closed for itself, so that a side that has said all can still listen.
    match copy_bidirectional_with_sizes(&mut client, &mut pod, BUFFER, BUFFER).await {
        Ok((up, down)) => tracing::debug!(up, down, "A tunnel ended"),
        Err(error) => tracing::debug!(%error, "A tunnel broke"),
    }
}
