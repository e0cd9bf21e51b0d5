//! The KEDA HTTP add-on: the HorizontalPodAutoscaler on concurrency, and KEDA between zero and one.
//!
//! | what | value | source |
//! |---|---|---|
//! | metric | requests at this moment, in the queue or in a pod | <https://keda.sh/http-add-on/0.14/concepts/scaling/> |
//! | period | `--horizontal-pod-autoscaler-sync-period` 15 s | <https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/> |
//! | count | `ceil(metric ÷ target)`, unchanged while metric ÷ (target × pods) is within 0.1 of 1 | the same page, algorithm details and tolerance |
//! | up | at once, by 100 % or 4 pods in 15 s, whichever is more | the same page, default behavior |
//! | down | the highest recommendation of the last 300 s | the same page, default behavior |
//! | 0 → 1 | KEDA activates the workload as soon as the interceptor reports a request | <https://keda.sh/docs/latest/concepts/scaling-deployments/> |
//! | 1 → 0 | `cooldownPeriod` of 300 s after the last active poll | <https://keda.sh/docs/latest/reference/scaledobject-spec/> |
//!
//! The add-on's poll for activity is every second here. With its defaults, the interceptor is polled every 500 ms and KEDA
//! trigger of activity every 200 ms. The target is 70 % of the limit, as for the other policies: the add-on's own default of
//! 100 requests knows no limit.

use std::collections::VecDeque;

use crate::{
    micros::Micros,
    scaler::{Decision, Scaler, Trigger, View},
};

const SECOND: Micros = 1_000_000;

/// Time between two polls for activity.
const POLL: Micros = SECOND;

/// Time between two decisions of the HorizontalPodAutoscaler.
const SYNC: Micros = 15 * SECOND;

/// `--horizontal-pod-autoscaler-tolerance`
const TOLERANCE: f64 = 0.1;

/// Default of `behavior.scaleUp.policies`: in each period by a factor, or by a number of pods.
const UP: (u32, u32) = (2, 4);

/// Default of `behavior.scaleDown.stabilizationWindowSeconds`
const STABILIZATION: Micros = 300 * SECOND;

/// Default of `cooldownPeriod`
const COOLDOWN: Micros = 300 * SECOND;

pub(super) struct Hpa {
    target: f64,
    /// Recommendations of the stabilization window.
    recommended: VecDeque<(Micros, u32)>,
    /// When a poll last saw a request.
    active: Micros,
    /// When the next poll is, while there is no pod and a request waits.
    poll: Option<Micros>,
}

impl Hpa {
    pub(super) fn new(limit: u32) -> Self {
        Self { target: (f64::from(limit) * 0.7).max(1.0), recommended: VecDeque::new(), active: 0, poll: None }
    }

    /// One period of the HorizontalPodAutoscaler.
    fn sync(&mut self, now: Micros, concurrency: u64, pods: u32) -> u32 {
        let usage = concurrency as f64 / self.target;
        let ratio = usage / f64::from(pods);
        let plain = if (ratio - 1.0).abs() <= TOLERANCE { pods } else { usage.ceil() as u32 };
        self.recommended.push_back((now, plain));
        while self.recommended.front().is_some_and(|(at, _)| *at + STABILIZATION <= now) {
            self.recommended.pop_front();
        }
        let stable = self.recommended.iter().map(|(_, count)| *count).max().unwrap_or(plain);
        let wanted = if plain >= pods { plain } else { stable.min(pods) };
        wanted.clamp(1, (pods * UP.0).max(pods + UP.1))
    }
}

impl Scaler for Hpa {
    fn trigger(&self) -> Trigger {
        Trigger::Poll
    }

    fn wake(&mut self, view: &View<'_>) -> Decision {
        Decision { pods: 0, decide_at: Some(*self.poll.get_or_insert((view.now / POLL + 1) * POLL)) }
    }

    fn decide(&mut self, view: &View<'_>) -> Decision {
        self.poll = None;
        let next = Some((view.now / POLL + 1) * POLL);
        if view.concurrency() > 0 {
            self.active = view.now;
        } else if view.now >= self.active + COOLDOWN {
            self.recommended.clear();
            return Decision { pods: 0, decide_at: None };
        }
        let pods = match view.desired {
            0 => u32::from(view.concurrency() > 0),
            pods if view.now.is_multiple_of(SYNC) => self.sync(view.now, view.concurrency(), pods),
            pods => pods,
        };
        Decision { pods, decide_at: next.filter(|_| pods > 0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        request::{Arrival, Function},
        world::run,
    };

    fn wanted(requests: &[Arrival], seconds: u64) -> Vec<(u64, u32)> {
        let function = Function { index: 0, kind: "test", limit: 10, start: 0.4, expected: 0.0 };
        let outcome = run(&function, requests, seconds * SECOND, 1, &mut Hpa::new(10));
        outcome.wanted.iter().map(|(at, count)| (*at / SECOND, *count)).collect()
    }

    #[test]
    fn a_count_within_the_tolerance_is_kept() {
        let mut hpa = Hpa::new(10);
        assert_eq!([76, 64].map(|concurrency| hpa.sync(0, concurrency, 10)), [10, 10]);
        assert_eq!(hpa.sync(0, 78, 10), 12);
    }

    #[test]
    fn scales_up_by_four_pods_or_to_twice_as_many() {
        let up = |pods| Hpa::new(10).sync(0, 10_000, pods);
        assert_eq!([1, 3, 4, 5, 20].map(up), [5, 7, 8, 10, 40]);
    }

    #[test]
    fn scales_down_to_the_highest_recommendation_of_five_minutes() {
        let mut hpa = Hpa::new(10);
        assert_eq!(hpa.sync(0, 70, 5), 10);
        assert_eq!(hpa.sync(15 * SECOND, 21, 10), 10);
        assert_eq!(hpa.sync(299 * SECOND, 7, 10), 10);
        assert_eq!(hpa.sync(300 * SECOND, 7, 10), 3, "10 were recommended five minutes ago, and 3 since");
        assert_eq!(hpa.sync(700 * SECOND, 0, 3), 1, "zero is for KEDA to want");
    }

    #[test]
    fn wakes_at_the_next_poll_and_scales_to_zero_after_the_cooldown() {
        let requests = [Arrival { at: 2_500_000, service: 10_000 }];
        // The poll at 3 s sees the request, that at 4 s no longer does.
        assert_eq!(wanted(&requests, 1_000), [(0, 0), (3, 1), (303, 0)]);
    }

    #[test]
    fn a_steady_load_is_decided_every_fifteen_seconds() {
        let requests: Vec<_> = (0..6_000).map(|nth| Arrival { at: nth * 20_000, service: 1_000_000 }).collect();
        let wanted = wanted(&requests, 60);
        assert_eq!(wanted[..3], [(0, 0), (1, 1), (15, 5)]);
        assert!(wanted.iter().all(|(at, _)| *at == 1 || at % 15 == 0), "{wanted:?}");
    }
}
