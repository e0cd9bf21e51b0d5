//! The policy of the product before it counted work: a request in the queue counts as concurrency, like one in a pod.
//!
//! A frozen copy of that algorithm, kept as a baseline. A queue that grows while pods start is taken for load, so the count
//! runs away when pods are late. Left out is what a simulation does not use: schedules, idle-time histograms, floors and
//! pauses.

use std::time::Duration;

use crate::{
    Micros,
    scaler::{Hears, Order, Scaler, View},
    world::MOST_PODS,
};

use super::Scaling;
use decide::{Setting, State, decide};

mod decide;
mod history;
mod peaks;

pub(super) struct Heads {
    setting: Setting,
    state: State,
}

impl Heads {
    pub(super) fn new(limit: u32, scaling: Scaling) -> Self {
        let setting = Setting {
            max: MOST_PODS,
            target: (f64::from(limit) * 0.7).max(1.0),
            idle_timeout: Duration::from_micros(scaling.idle),
            stable_window: Duration::from_micros(scaling.stable),
            panic_window: Duration::from_secs(6),
        };
        Self { setting, state: State::new() }
    }
}

impl Scaler for Heads {
    fn hears(&self) -> Hears {
        Hears::Frames
    }

    /// The activator's patch from zero: a slot for each request in the queue.
    fn wake(&mut self, view: &View<'_>) -> Order {
        let pods = (view.queued as f64 / self.setting.target).ceil().max(1.0) as u32;
        Order { pods, again: None }
    }

    fn decide(&mut self, view: &View<'_>) -> Order {
        let (pods, again) = decide(view, &self.setting, &mut self.state);
        if pods != view.desired {
            self.state.wrote(pods);
        }
        Order { pods, again: again.and_then(|at| Micros::try_from(at.as_micros()).ok()) }
    }
}
