//! The product's own policy: `rouse_autoscaler::decide` on each frame, and the activator's wake from zero. Everything that
//! the simulator needs of that crate is in this file.

use std::time::Duration;

use rouse_autoscaler::{Demand, Observed, PRICE, Policy, State, decide};

use crate::{
    Micros,
    policy::Scaling,
    scaler::{Hears, Order, Scaler, View},
    trace::Function,
    world::MOST_PODS,
};

pub(super) struct Rouse {
    policy: Policy,
    state: State,
}

impl Rouse {
    /// A Function whose spec says `concurrencyLimit`, `idleTimeout` and `stableWindow` and leaves the rest to the defaults.
    pub(super) fn new(function: &Function, scaling: Scaling, prewarm: bool) -> Self {
        let policy = Policy {
            max: MOST_PODS,
            target: (f64::from(function.limit) * 0.7).max(1.0),
            limit: Some(function.limit),
            idle_timeout: Duration::from_micros(scaling.idle),
            stable_window: Duration::from_micros(scaling.stable),
            prewarm: prewarm.then_some(PRICE),
            ..Policy::default()
        };
        Self { policy, state: State::new(Duration::ZERO) }
    }
}

impl Scaler for Rouse {
    fn hears(&self) -> Hears {
        Hears::Frames
    }

    /// The activator's patch from zero; the frame that goes out at the same time is decided on after it.
    fn wake(&mut self, _: &View<'_>) -> Order {
        Order { pods: 1, again: None }
    }

    fn decide(&mut self, view: &View<'_>) -> Order {
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
        // A write never fails here, and is seen at once.
        if decision.replicas != view.desired {
            self.state.wrote(decision.replicas);
        }
        let again = decision.wake_at.and_then(|at| Micros::try_from(at.as_micros()).ok());
        Order { pods: decision.replicas, again }
    }
}
