//! Writes to a client: their progress, and the timeout of a client that does not read.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use crate::downstream::LazyTimer;

/// Progress of writes to a client, as bytes that the kernel has taken.
#[derive(Debug, Default)]
pub(super) struct WriteProgress {
    bytes: AtomicU64,
    blocked: AtomicBool,
}

/// Timeout of a client that does not read: writes are blocked, and no byte is taken for the limit.
#[derive(Debug)]
pub(super) struct SendTimeout {
    limit: Duration,
    /// When writes became blocked, after how many bytes.
    blocked: Option<(Instant, u64)>,
    timer: LazyTimer,
}

impl WriteProgress {
    /// Returns the bytes written since the connection began.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether there is data that the kernel does not take.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    pub(super) fn record(&self, written: &Poll<io::Result<usize>>, wanted: usize) {
        let count = match written {
            Poll::Ready(Ok(count)) => *count,
            Poll::Ready(Err(_)) => return,
            Poll::Pending => 0,
        };
        // Only the connection's own task writes.
        self.bytes.store(self.bytes().wrapping_add(count as u64), Ordering::Relaxed);
        self.blocked.store(count < wanted, Ordering::Relaxed);
    }
}

impl SendTimeout {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, blocked: None, timer: LazyTimer::default() }
    }

    /// Passes the result of a write or flush on; fails if it is pending and no byte was taken for the limit, or for
    /// `idle` if that is shorter.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        progress: &WriteProgress,
        idle: Duration,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            return polled;
        }
        let bytes = progress.bytes();
        let since = match self.blocked {
            Some((since, seen)) if seen == bytes => since,
            _ => {
                let now = Instant::now();
                self.blocked = Some((now, bytes));
                now
            }
        };
        ready!(self.timer.poll_until(cx, since + self.limit.min(idle)));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::sleep;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn blocked_writes_fail_after_the_limit_without_progress() {
        let (progress, mut timeout) = (WriteProgress::default(), SendTimeout::new(LIMIT));
        let mut blocked = async |idle: Duration| {
            let began = Instant::now();
            let failed = poll_fn(|cx| timeout.poll::<()>(cx, Poll::Pending, &progress, idle)).await;
            assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::TimedOut);
            began.elapsed().as_secs()
        };
        assert_eq!(blocked(Duration::MAX).await, 60);
        progress.record(&Poll::Ready(Ok(1)), 2);
        assert!(progress.is_blocked() && progress.bytes() == 1);
        assert_eq!(blocked(Duration::from_secs(5)).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn each_byte_that_is_taken_renews_the_limit() {
        let (progress, mut timeout) = (WriteProgress::default(), SendTimeout::new(LIMIT));
        for _ in 0..10 {
            let pending = poll_fn(|cx| {
                Poll::Ready(timeout.poll::<usize>(cx, Poll::Pending, &progress, Duration::MAX).is_pending())
            });
            assert!(pending.await);
            sleep(Duration::from_secs(50)).await;
            progress.record(&Poll::Ready(Ok(1)), 1);
        }
        assert!(!progress.is_blocked());
    }
}
