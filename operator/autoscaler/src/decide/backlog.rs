//! A backlog: queued requests are work that has to be done once.
//!
//! What is queued takes `queued × service time` seconds in pods. Done within the drain time T, beside the load, that is
//! `(load + queued × service time ÷ T) ÷ what a pod takes` pods. T is at least [`DRAIN`] start times: pods that could not be
//! ready long before a backlog is gone would come too late to be of use. That bounds what a late start costs: requests that
//! arrive while the first pods take D to start are `load × D` of work, so no more than `1 ÷ DRAIN` of the load is added for
//! them, whatever D is.
//!
//! A backlog that the pods that there are, or are on their way, drain within twice that time adds nothing, and takes none of
//! them away before it is drained.
//!
//! For one backlog pods are asked for once, within [`ASK`] of the time at which the service time is known. Until all pods that
//! are on their way are there, nothing else is added for what is queued. While requests are in pods and none has ended, the
//! service time is at least their age, and the count follows it.

use std::time::Duration;

use crate::{
    Demand, Metric, Observed, Policy, State,
    decide::{loads::Loads, loads::target, pods},
};

/// The drain time in start times.
const DRAIN: u32 = 1;

/// A backlog that is gone in so many drain times is left to the pods that there are.
const ENOUGH: f64 = 2.0;

/// The shortest drain time.
const SHORTEST: Duration = Duration::from_secs(3);

/// The same while it is only known how long requests have taken up to now, and none, or few, have ended: if they were short,
/// some would have.
const UNKNOWN: Duration = Duration::from_secs(1);

/// How long after the first pods were asked for because of a backlog their count may still be corrected.
const ASK: Duration = Duration::from_secs(1);

/// The start time while none is known.
const START: Duration = Duration::from_secs(1);

/// The part of what a pod takes that a target is as a rule: a backlog may use the rest.
const UTILIZATION: f64 = 0.7;

/// What was asked for because of the present queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backlog {
    /// When it was asked for first, or last while the service time was not known.
    since: Duration,
    /// The most that was.
    most: u32,
}

/// Pods for the load and the backlog together; `None` if the queue adds nothing to `base`, the pods for the load.
pub(super) fn wanted(
    demand: &Demand,
    observed: &Observed,
    base: u32,
    policy: &Policy,
    state: &mut State,
    loads: &Loads,
) -> Option<u32> {
    if demand.queued == 0 || loads.serving == 0 {
        state.backlogged = None;
        return None;
    }
    let target = target(policy);
    let queued = demand.queued as f64;
    let (each, full) = match policy.metric {
        Metric::Concurrency => (loads.service?, full(policy)),
        Metric::Rps => (1.0, target),
    };
    let work = queued * each;
    let load = loads.stable.max(loads.swift) * target;
    let known = state.service.explains(demand);
    let shortest = if known { SHORTEST } else { UNKNOWN };
    let drain = drain_time(state, shortest).as_secs_f64();
    let within = |drain: f64| pods(((load + work / drain) / full).min(loads.at_once));
    let mut former = state.backlogged.unwrap_or(Backlog { since: state.clock, most: 0 });
    if !known {
        former.since = state.clock;
    }
    let mut wanted = within(drain).max(former.most);
    let asked = state.clock.saturating_sub(former.since) > ASK && state.starts.any();
    if asked || observed.desired >= within(ENOUGH * drain) {
        wanted = wanted.min(observed.desired);
    }
    if wanted <= base {
        return None;
    }
    state.backlogged = Some(Backlog { most: wanted, ..former });
    Some(wanted)
}

/// The time in which a backlog is to be gone.
fn drain_time(state: &State, shortest: Duration) -> Duration {
    state.starts.at_least(state.clock).unwrap_or(START).saturating_mul(DRAIN).max(shortest)
}

/// Requests that a pod takes at once while there is a backlog: up to its limit, but no more beyond the target than a target
/// leaves as a rule.
fn full(policy: &Policy) -> f64 {
    let target = target(policy);
    let most = policy.limit.map_or(f64::INFINITY, f64::from);
    (target / UTILIZATION).min(most).max(target.min(most)).max(f64::MIN_POSITIVE)
}
