//! Age of a watch: the time since the API server was last heard on it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Age of a watch.
#[derive(Debug, Default)]
pub struct WatchAge(Mutex<Option<Instant>>);

/// Age from which the address of a pod is not proven by a TCP connection: the pod may be deleted, and its address
/// another pod's by now.
const STALE: Duration = Duration::from_secs(60);

/// Age from which this process does not count as ready.
const EXPIRED: Duration = Duration::from_secs(600);

impl WatchAge {
    /// Records that the API server was heard: it has listed the objects, accepted the watch, or sent an event or a
    /// bookmark.
    pub fn record(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Returns the time since the API server was last heard; `None` before the first time.
    #[must_use]
    pub fn get(&self) -> Option<Duration> {
        self.0.lock().map(|last| last.elapsed())
    }

    /// Whether what the watch has reported may be outdated.
    pub(super) fn is_stale(&self) -> bool {
        self.get().is_some_and(|age| age >= STALE)
    }

    /// Whether nothing may be concluded any more from what the watch has reported.
    pub(crate) fn is_expired(&self) -> bool {
        self.get().is_some_and(|age| age >= EXPIRED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_watch_ages_until_the_api_server_is_heard() {
        let age = WatchAge::default();
        tokio::time::advance(EXPIRED).await;
        assert_eq!((age.get(), age.is_stale(), age.is_expired()), (None, false, false), "no watch has begun");
        age.record();
        assert!(!age.is_stale());
        tokio::time::advance(STALE).await;
        assert_eq!((age.get(), age.is_stale(), age.is_expired()), (Some(STALE), true, false));
        tokio::time::advance(EXPIRED - STALE).await;
        assert!(age.is_expired());
        age.record();
        assert!(!age.is_stale() && !age.is_expired());
    }
}
