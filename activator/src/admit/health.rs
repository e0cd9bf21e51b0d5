//! What is known of a revision that does not start, and when it may be tried again.

use std::time::Duration;

use rouse_crds::pod::PodFailure;
use tokio::time::Instant;

use super::refusal::Refusal;
use crate::backoff::jitter;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// What is known of a revision that does not start.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Failures since a pod last served.
    tries: u32,
    /// The last failure, and until when nothing new is started because of it.
    last: Option<(PodFailure, Instant)>,
}

impl Health {
    /// Notes a failure and says what waiting requests are told.
    pub(super) fn fail(&mut self, now: Instant, failure: PodFailure) -> Refusal {
        let delay = jitter(FIRST, self.tries, LONGEST);
        self.tries = self.tries.saturating_add(1);
        self.last = Some((failure.clone(), now + delay));
        Refusal::Failing { failure, retry_after: delay }
    }

    /// A pod serves.
    pub(super) fn served(&mut self) {
        *self = Self::default();
    }

    /// What a request is told that comes while the only pods fail.
    pub(super) fn refusal(&self, now: Instant) -> Option<Refusal> {
        let (failure, until) = self.last.as_ref()?;
        let retry_after = until.saturating_duration_since(now);
        Some(Refusal::Failing { failure: failure.clone(), retry_after })
    }

    /// What a request is told that would start something too soon after a failure.
    pub(super) fn holds_back(&self, now: Instant) -> Option<Refusal> {
        let (_, until) = self.last.as_ref()?;
        if now < *until { self.refusal(now) } else { None }
    }

    /// Until when nothing new is started because of a failure, if there was one.
    pub(super) fn until(&self) -> Option<Instant> {
        self.last.as_ref().map(|(_, until)| *until)
    }

    /// Whether a failure stands against it.
    pub(super) fn failed(&self) -> bool {
        self.last.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_holds_back_longer_until_one_serves() {
        let failure = PodFailure { reason: "ErrImagePull".into(), message: "no".into() };
        let mut health = Health::default();
        let now = Instant::now();
        assert_eq!(health.holds_back(now), None);
        for tries in 0..20 {
            health.fail(now, failure.clone());
            let longest = Duration::from_secs(1 << tries.min(6)).min(LONGEST);
            assert!(health.holds_back(now + longest / 2 - Duration::from_millis(1)).is_some());
            assert_eq!(health.holds_back(now + longest), None);
            assert!(health.refusal(now + longest).is_some(), "it is still known why");
        }
        health.served();
        assert_eq!(health.refusal(now), None);
    }
}
