//! Failure state of a revision, with backoff.

use std::time::Duration;

use rouse_crds::pod::PodFailure;
use tokio::time::Instant;

use super::rejection::Rejection;
use crate::backoff::jitter;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Failure state of a revision.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Failures since a pod last served.
    tries: u32,
    /// The last failure, and the end of its backoff.
    last: Option<(PodFailure, Instant)>,
}

impl Health {
    /// Records a failure, and returns the rejection for queued requests.
    pub(super) fn record_failure(&mut self, now: Instant, failure: PodFailure) -> Rejection {
        let delay = jitter(FIRST, self.tries, LONGEST);
        self.tries = self.tries.saturating_add(1);
        self.last = Some((failure.clone(), now + delay));
        Rejection::Failing { failure, retry_after: delay }
    }

    /// Forgets all failures: a pod has served.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Returns the rejection for a new request while all pods fail.
    pub(super) fn rejection(&self, now: Instant) -> Option<Rejection> {
        let (failure, until) = self.last.as_ref()?;
        let retry_after = until.saturating_duration_since(now);
        Some(Rejection::Failing { failure: failure.clone(), retry_after })
    }

    /// Returns the rejection for a new request that would wake the revision during backoff.
    pub(super) fn backoff_rejection(&self, now: Instant) -> Option<Rejection> {
        let (_, until) = self.last.as_ref()?;
        if now < *until { self.rejection(now) } else { None }
    }

    /// Returns the end of the backoff, if there was a failure.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.last.as_ref().map(|(_, until)| *until)
    }

    /// Whether there was a failure since a pod last served.
    pub(super) fn has_failed(&self) -> bool {
        self.last.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_with_each_failure_until_a_pod_serves() {
        let failure = PodFailure { reason: "ErrImagePull".into(), message: "no".into() };
        let mut health = Health::default();
        let now = Instant::now();
        assert_eq!(health.backoff_rejection(now), None);
        for tries in 0..20 {
            health.record_failure(now, failure.clone());
            let longest = Duration::from_secs(1 << tries.min(6)).min(LONGEST);
            assert!(health.backoff_rejection(now + longest / 2 - Duration::from_millis(1)).is_some());
            assert_eq!(health.backoff_rejection(now + longest), None);
            assert!(health.rejection(now + longest).is_some(), "it is still known why");
        }
        health.reset();
        assert_eq!(health.rejection(now), None);
    }
}
