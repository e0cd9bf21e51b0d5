//! The decision.

use std::{fmt, time::Duration};

use crate::{Demand, Metric, Observed, Policy, State, history::Average, state::Panic};

/// A rise is sudden when the panic window wants at least this many times the pods that are ready.
const PANIC_THRESHOLD: f64 = 2.0;

/// A hundredth of a pod is no pod. Frames are late by some milliseconds, and at a target of 1 that alone would ask for one
/// more now and then.
const SLACK: f64 = 0.01;

/// While pods are there and demand is in the windows, averages fall by the mere passing of time, so they are looked at
/// again this often.
const REVIEW: Duration = Duration::from_secs(1);

/// How many pods, why, and when to ask again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// Pods wanted.
    pub replicas: u32,
    /// What decided it.
    pub reason: Reason,
    /// Ask again at this time even if nothing has changed. `None`: nothing will change by itself.
    pub wake_at: Option<Duration>,
}

/// What decided a count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// No request for the whole idle time-out.
    Idle,
    /// No load, but the idle time-out is not over.
    KeptWarm,
    /// The average over the stable window.
    Load,
    /// The average over the panic window, in a sudden rise.
    Panic,
    /// Too little is known since the start to go below the count that there is.
    Learning,
    /// The revision is being proven.
    Initial,
    /// More was wanted within the scale-down delay.
    Delayed,
    /// `scaling.min`.
    Min,
    /// `scaling.max`.
    Max,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle for the whole idleTimeout",
            Self::KeptWarm => "idleTimeout is not over",
            Self::Load => "load over the stable window",
            Self::Panic => "sudden rise over the panic window",
            Self::Learning => "kept until a whole window has been seen",
            Self::Initial => "being proven",
            Self::Delayed => "more was wanted within scaleDownDelay",
            Self::Min => "scaling.min",
            Self::Max => "scaling.max",
        })
    }
}

/// Decides how many pods a revision should have at `now`.
///
/// - While anything is in flight or queued, and until `idle_timeout` after the last request, there is at least one pod.
/// - After `idle_timeout` without a request there are `min` (or `initial`, while it is being proven).
/// - In between, demand averaged over the windows and divided by the target.
/// - After a restart, the present count is the floor until a whole stable window has been seen (or the idle time-out is
///   over, which is a whole window of its own).
///
/// `max` wins over all of this.
pub fn decide(now: Duration, demand: &Demand, observed: &Observed, policy: &Policy, state: &mut State) -> Decision {
    let called = demand.concurrency() > 0 || state.arrivals.is_some_and(|before| before != demand.arrivals);
    if called {
        state.last_active = state.last_active.max(now);
    }
    state.arrivals = Some(demand.arrivals);
    state.history.record(now, demand, policy.stable_window, policy.panic_window);

    let idle_at = state.last_active + policy.idle_timeout;
    let idle = demand.concurrency() == 0 && now >= idle_at;
    let (mut replicas, mut reason) = if idle { rest(state) } else { serve(now, observed, policy, state) };
    // Whether there is to be a pod at all is not for an average to say. From zero, only a request that is there now (or
    // was since the decision before) starts one; with a pod there, the idle time-out keeps the last one.
    if !idle && replicas <= 1 && demand.concurrency() == 0 {
        let kept = called || observed.desired > 0;
        (replicas, reason) = if kept { (1, Reason::KeptWarm) } else { (0, Reason::Idle) };
    }
    if replicas == 0 && called {
        (replicas, reason) = (1, Reason::Load);
    }
    let raise = |floor: u32, why: Reason, replicas: &mut u32, reason: &mut Reason| {
        if floor > *replicas {
            (*replicas, *reason) = (floor, why);
        }
    };
    raise(policy.initial, Reason::Initial, &mut replicas, &mut reason);
    raise(policy.min, Reason::Min, &mut replicas, &mut reason);
    if replicas > policy.max {
        (replicas, reason) = (policy.max, Reason::Max);
    }
    let wake_at = if demand.concurrency() > 0 {
        // The idle time-out is not running: the review is all that time brings.
        Some(now + REVIEW)
    } else if idle {
        None
    } else if quiet(policy, state) {
        Some(idle_at)
    } else {
        Some(idle_at.min(now + REVIEW))
    };
    Decision { replicas, reason, wake_at }
}

/// Nobody has called for the whole idle time-out.
fn rest(state: &mut State) -> (u32, Reason) {
    state.panic = None;
    state.wanted.clear();
    (0, Reason::Idle)
}

fn serve(now: Duration, observed: &Observed, policy: &Policy, state: &mut State) -> (u32, Reason) {
    let stable = wanted(state.history.average(policy.stable_window), policy);
    let panic = wanted(state.history.average(policy.panic_window), policy);

    if f64::from(panic) >= PANIC_THRESHOLD * f64::from(observed.ready.max(1)) {
        let most = state.panic.map_or(0, |p| p.most).max(panic);
        state.panic = Some(Panic { last_over: now, most });
    } else if state.panic.is_some_and(|p| now.saturating_sub(p.last_over) >= policy.stable_window) {
        state.panic = None;
    }
    let (mut replicas, mut reason) = match &mut state.panic {
        Some(rise) => {
            // Pods are only added while a rise is on.
            rise.most = rise.most.max(panic).max(stable);
            (rise.most, Reason::Panic)
        }
        None => (stable, Reason::Load),
    };
    let delayed = state.most_wanted(now, replicas, policy.scale_down_delay);
    if delayed > replicas {
        (replicas, reason) = (delayed, Reason::Delayed);
    }
    if now.saturating_sub(state.since) < policy.stable_window && observed.desired > replicas {
        (replicas, reason) = (observed.desired, Reason::Learning);
    }
    (replicas, reason)
}

/// Pods for an average.
fn wanted(average: Average, policy: &Policy) -> u32 {
    let load = match policy.metric {
        Metric::Concurrency => average.concurrency,
        Metric::Rps => average.rps,
    };
    // A target of 0 cannot be written in a Function; were it to come here, one pod for each request is the least harm.
    let target = if policy.target > 0.0 { policy.target } else { 1.0 };
    (load / target - SLACK).ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// Whether nothing but the idle time-out will change the count: no demand in the windows and no rise under way.
fn quiet(policy: &Policy, state: &State) -> bool {
    let average = state.history.average(policy.stable_window);
    state.panic.is_none() && wanted(average, policy) <= 1 && state.wanted.iter().all(|(_, c)| *c <= 1)
}

#[cfg(test)]
mod tests;
