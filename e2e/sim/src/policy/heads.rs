//! The earlier policy of Rouse: a request in the queue counts as concurrency, like a request in a pod.
//!
//! A frozen copy of that algorithm, as a baseline. A queue that grows while pods start counts as load, so the count runs
//! away when pods start late. Features that the simulation does not use are omitted: schedules, idle-time histograms, minimum
//! counts and pauses.

use std::time::Duration;

use crate::{
    micros::Micros,
    scaler::{Decision, Scaler, Trigger, View},
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
    fn trigger(&self) -> Trigger {
        Trigger::Frames
    }

    /// The activator's patch from zero: a slot for each request in the queue.
    fn wake(&mut self, view: &View<'_>) -> Decision {
        let pods = (view.queued as f64 / self.setting.target).ceil().max(1.0) as u32;
        Decision { pods, decide_at: None }
    }

    fn decide(&mut self, view: &View<'_>) -> Decision {
        let (pods, decide_at) = decide(view, &self.setting, &mut self.state);
        if pods != view.desired {
            self.state.wrote(pods);
        }
        Decision { pods, decide_at: decide_at.and_then(|at| Micros::try_from(at.as_micros()).ok()) }
    }
}
