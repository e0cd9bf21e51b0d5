//! The policy of Rouse: `rouse_autoscaler::decide` on each demand frame, and the activator's wake from zero.

use std::time::Duration;

use rouse_autoscaler::{COLD_START_COST, Demand, Observed, Policy, State, decide};

use crate::{
    micros::Micros,
    policy::Scaling,
    request::Function,
    scaler::{Decision, Scaler, Trigger, View},
    world::MOST_PODS,
};

pub(super) struct Rouse {
    policy: Policy,
    state: State,
}

impl Rouse {
    /// Creates the policy of a Function with `concurrencyLimit`, `idleTimeout` and `stableWindow`, and defaults otherwise.
    pub(super) fn new(function: &Function, scaling: Scaling, prewarm: bool) -> Self {
        let policy = Policy {
            max: MOST_PODS,
            target: (f64::from(function.limit) * 0.7).max(1.0),
            limit: Some(function.limit),
            idle_timeout: Duration::from_micros(scaling.idle),
            stable_window: Duration::from_micros(scaling.stable),
            prewarm: prewarm.then_some(COLD_START_COST),
            ..Policy::default()
        };
        Self { policy, state: State::new(Duration::ZERO) }
    }
}

impl Scaler for Rouse {
    fn trigger(&self) -> Trigger {
        Trigger::Frames
    }

    /// The activator's patch from zero. The demand frame that is sent at the same time is processed after it.
    fn wake(&mut self, _: &View<'_>) -> Decision {
        Decision { pods: 1, decide_at: None }
    }

    fn decide(&mut self, view: &View<'_>) -> Decision {
        let demand = Demand {
            in_flight: view.in_flight,
            queued: view.queued,
            arrivals: view.arrivals,
            completions: view.completions,
            abandoned: view.abandoned,
            request_us: view.request_us,
            busy_us: view.busy_us,
            served_us: view.served_us,
        };
        let observed = Observed { desired: view.desired, ready: view.pods.ready() };
        let now = Duration::from_micros(view.now);
        let decision = decide(now, &demand, &observed, &self.policy, &mut self.state);
        // A write never fails here, and is observed at once.
        if decision.replicas != view.desired {
            self.state.wrote(decision.replicas);
        }
        let decide_at = decision.wake_at.and_then(|at| Micros::try_from(at.as_micros()).ok());
        Decision { pods: decision.replicas, decide_at }
    }
}
