//! Protocol upgrades: tunnels of bytes in both directions, from the 101 on and not before.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes},
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;

use crate::{admit::Permit, body::Progress};

/// Buffer of each direction of a tunnel.
const BUFFER: usize = 8 << 10;

/// How long both sides may take to switch protocols after the 101.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);

/// Connects both sides once the 101 was sent to the client, until they close it or it was idle for `idle`. The request
/// is in flight until then.
pub(super) fn tunnel(tunnels: &TaskTracker, client: OnUpgrade, pod: OnUpgrade, permit: Permit, idle: Option<Duration>) {
    tunnels.spawn(async move {
        let both = tokio::time::timeout(CHANGE_LIMIT, async { tokio::try_join!(client, pod) });
        match both.await {
            Ok(Ok((client, pod))) => copy_both(client, pod, idle).await,
            Ok(Err(error)) => tracing::debug!(%error, "Protocol upgrade failed"),
            Err(_) => tracing::debug!("Protocol upgrade timed out"),
        }
        drop(permit);
    });
}

async fn copy_both(client: Upgraded, pod: Upgraded, idle: Option<Duration>) {
    let progress = idle.map(|limit| (limit, Progress::new(None)));
    let (client, mut pod) = (TokioIo::new(client), TokioIo::new(pod));
    let mut client = TrackedStream { io: client, progress: progress.as_ref().map(|(_, progress)| progress.clone()) };
    tokio::select! {
        // Each direction closes on its own, so that a side that has sent everything can still receive.
        ended = copy_bidirectional_with_sizes(&mut client, &mut pod, BUFFER, BUFFER) => match ended {
            Ok((up, down)) => tracing::debug!(up, down, "Tunnel closed"),
            Err(error) => tracing::debug!(%error, "Tunnel failed"),
        },
        limit = idle_timeout(progress) => {
            tracing::debug!(?limit, "Tunnel reached its idle timeout");
            // Both sides see a close, as if the other had closed. There is nobody to report an error to.
            drop(tokio::join!(client.shutdown(), pod.shutdown()));
        }
    }
}

/// Completes when no byte passed for the limit.
async fn idle_timeout(progress: Option<(Duration, Arc<Progress>)>) -> Duration {
    let Some((limit, progress)) = progress else { return std::future::pending().await };
    loop {
        let until = progress.last() + limit;
        if until <= Instant::now() {
            return limit;
        }
        sleep_until(until).await;
    }
}

/// One side of a tunnel, through which the bytes of both directions pass; records when they do.
struct TrackedStream<T> {
    io: T,
    progress: Option<Arc<Progress>>,
}

impl<T> TrackedStream<T> {
    fn record(&self) {
        if let Some(progress) = &self.progress {
            progress.touch();
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for TrackedStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if read.is_ready() {
            self.record();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TrackedStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if written.is_ready() {
            self.record();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
