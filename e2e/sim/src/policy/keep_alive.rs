//! Fixed keep-alive, as in most public clouds: a request without a free slot starts a pod, and a pod is removed after an
//! idle time.

use crate::{
    micros::Micros,
    scaler::{Decision, Scaler, Trigger, View},
};

pub(super) struct KeepAlive {
    idle: Micros,
}

impl KeepAlive {
    pub(super) fn new(idle: Micros) -> Self {
        Self { idle }
    }
}

impl Scaler for KeepAlive {
    fn trigger(&self) -> Trigger {
        Trigger::Queued
    }

    fn wake(&mut self, view: &View<'_>) -> Decision {
        self.decide(view)
    }

    fn decide(&mut self, view: &View<'_>) -> Decision {
        // Slots of starting pods count.
        let limit = u64::from(view.pods.limit());
        let coming = u64::from(view.pods.starting()) * limit;
        let missing = view.queued.saturating_sub(coming).div_ceil(limit) as u32;
        let (mut expired, mut first) = (0, None);
        for since in view.pods.idle_since() {
            if since + self.idle <= view.now {
                expired += 1;
            } else {
                first = Some(first.map_or(since, |f: Micros| f.min(since)));
            }
        }
        let pods = (view.pods.live() + missing).saturating_sub(expired);
        // A busy pod cannot reach the idle time any sooner.
        let decide_at = (pods > 0).then(|| first.unwrap_or(view.now) + self.idle);
        Decision { pods, decide_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        request::{Arrival, Function},
        world::run,
    };

    const SECOND: Micros = 1_000_000;

    #[test]
    fn a_pod_for_each_request_without_a_slot_is_removed_when_idle() {
        let function = Function { index: 0, kind: "test", limit: 1, start: 0.4, expected: 0.0 };
        let arrival = |at: Micros| Arrival { at, service: 1_000_000 };
        let requests = [arrival(0), arrival(0), arrival(60 * SECOND), arrival(150 * SECOND), arrival(300 * SECOND)];
        let outcome = run(&function, &requests, 1_000 * SECOND, 1, &mut KeepAlive { idle: 100 * SECOND });
        // The second pod was removed at 101; the first was used at 60 and 150 and removed at 251.
        assert_eq!((outcome.cold, outcome.pods.starts), (3, 3));
        let wanted: Vec<_> = outcome.wanted.iter().map(|(at, count)| (at / SECOND, *count)).collect();
        assert_eq!(wanted, [(0, 0), (0, 1), (0, 2), (101, 1), (251, 0), (300, 1), (401, 0)]);
    }
}
