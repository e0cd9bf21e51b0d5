//! Progress of a request: when a byte last passed in either direction, and how long the client was waited for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::minimum_rate::MinimumRate;

/// Progress of a request. Its times are milliseconds since `began`; the body is read by one task at a time.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    last: AtomicU64,
    /// The whole request body has been read.
    whole: AtomicBool,
    /// The request body has failed.
    failed: AtomicBool,
    rate: Option<MinimumRate>,
    /// When the wait for the client began, plus one; zero while it is not waited for.
    waiting: AtomicU64,
    /// Time that the client was waited for and that its bytes have not made up for.
    debt: AtomicU64,
}

impl Progress {
    /// Creates the progress of a request, whose body has this minimum rate.
    pub(crate) fn new(rate: Option<MinimumRate>) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            rate,
            waiting: AtomicU64::new(0),
            debt: AtomicU64::new(0),
        })
    }

    pub(crate) fn touch(&self) {
        self.last.store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Instant {
        self.at(self.last.load(Ordering::Relaxed))
    }

    /// Records that the pod waits for the client.
    pub(super) fn wait(&self) {
        if self.rate.is_some() && self.waiting.load(Ordering::Relaxed) == 0 {
            self.waiting.store(self.now() + 1, Ordering::Relaxed);
        }
    }

    /// Records bytes of the request body.
    pub(super) fn receive(&self, bytes: u64) {
        let now = self.now();
        self.last.store(now, Ordering::Relaxed);
        let Some(rate) = &self.rate else { return };
        let waited = match self.waiting.swap(0, Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since - 1),
        };
        self.debt.store(rate.debt(self.debt.load(Ordering::Relaxed), waited, bytes), Ordering::Relaxed);
    }

    /// Records that the pod has the whole request.
    pub(super) fn end(&self) {
        self.whole.store(true, Ordering::Relaxed);
        self.waiting.store(0, Ordering::Relaxed);
    }

    /// Whether the pod has the whole request, so that only its response is waited for.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// Records that the client has aborted its body, or sent a malformed one.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Whether the request body has failed, so that the pod is not to blame for the loss of the request.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Returns when the client may be too slow at the earliest, if it can be.
    pub(crate) fn too_slow_at(&self) -> Option<Instant> {
        let rate = self.rate.as_ref().filter(|_| !self.is_whole())?;
        let patience = rate.patience(self.debt.load(Ordering::Relaxed));
        let at = match self.waiting.load(Ordering::Relaxed) {
            // The wait may begin at any time. A client without any patience left is not looked at without a pause.
            0 => self.now().saturating_add(patience.max(1000)),
            since => (since - 1).saturating_add(patience),
        };
        Some(self.at(at))
    }

    /// Whether the pod waits for a client whose body arrives below the minimum rate.
    pub(crate) fn is_too_slow(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 && self.too_slow_at().is_some_and(|at| at <= Instant::now())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.began + Duration::from_millis(milliseconds)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_time_that_the_client_is_waited_for_counts() {
        let seconds = Duration::from_secs;
        let progress = Progress::new(MinimumRate::new(seconds(60), 1024));
        sleep(seconds(100)).await;
        assert!(!progress.is_too_slow(), "the pod did not read");
        assert_eq!(progress.too_slow_at(), Some(Instant::now() + seconds(60)));
        progress.wait();
        sleep(seconds(50)).await;
        progress.wait();
        assert!(!progress.is_too_slow());
        progress.receive(20 * 1024);
        assert_eq!(progress.last(), Instant::now());
        sleep(seconds(100)).await;
        progress.wait();
        assert_eq!(progress.too_slow_at(), Some(Instant::now() + seconds(30)));
        sleep(seconds(30)).await;
        assert!(progress.is_too_slow());
        progress.end();
        assert!(!progress.is_too_slow() && progress.too_slow_at().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_no_client_is_too_slow() {
        let progress = Progress::new(None);
        progress.wait();
        sleep(Duration::from_secs(1 << 20)).await;
        assert!(!progress.is_too_slow() && progress.too_slow_at().is_none());
    }
}
