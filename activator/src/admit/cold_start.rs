//! Phases of a cold start.

use std::time::Duration;

use tokio::time::Instant;

/// Phases of the time that a request spent waiting for a pod to start, measured by the clock of this process. Their sum
/// is at most `queue`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColdStart {
    /// From arrival until the request was granted a permit.
    pub queue: Duration,
    /// Until the API server had accepted the scale patch.
    pub wake: Duration,
    /// From there until the pod was scheduled to a node.
    pub schedule: Duration,
    /// From there until the pod had an IP address.
    pub start: Duration,
    /// From there until a probe succeeded.
    pub probe: Duration,
}

/// When this process saw each step. A step before the request's arrival takes none of its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Milestones {
    pub(super) parked: Instant,
    pub(super) woken: Option<Instant>,
    pub(super) scheduled: Option<Instant>,
    pub(super) started: Option<Instant>,
    pub(super) admitted: Instant,
}

impl Milestones {
    pub(super) fn cold_start(self, now: Instant) -> ColdStart {
        let mut reached = self.parked;
        let mut step = |at: Option<Instant>| {
            let at = at.unwrap_or(reached).clamp(reached, self.admitted.max(reached));
            let took = at.duration_since(reached);
            reached = at;
            took
        };
        ColdStart {
            wake: step(self.woken),
            schedule: step(self.scheduled),
            start: step(self.started),
            probe: step(Some(self.admitted)),
            queue: now.saturating_duration_since(self.parked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn phases_are_consecutive() {
        let t = Instant::now();
        let seen = Milestones {
            parked: t,
            woken: Some(t + ms(3)),
            scheduled: Some(t + ms(20)),
            started: Some(t + ms(90)),
            admitted: t + ms(100),
        };
        assert_eq!(
            seen.cold_start(t + ms(101)),
            ColdStart { queue: ms(101), wake: ms(3), schedule: ms(17), start: ms(70), probe: ms(10) }
        );
    }

    #[test]
    fn steps_before_arrival_and_unknown_steps_take_no_time() {
        let t = Instant::now() + ms(1000);
        let seen = Milestones {
            parked: t,
            woken: Some(t - ms(500)),
            scheduled: None,
            started: Some(t + ms(400)),
            admitted: t + ms(10),
        };
        assert_eq!(
            seen.cold_start(t + ms(10)),
            ColdStart { queue: ms(10), wake: ms(0), schedule: ms(0), start: ms(10), probe: ms(0) }
        );
    }
}
