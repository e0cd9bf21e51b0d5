//! Pods for a backlog: queued requests are work that has to be done once.
//!
//! The queue takes `queued × service time` pod-seconds. Draining it within the drain time T, in addition to the load, takes
//! `(load + queued × service time ÷ T) ÷ capacity of a pod` pods. T is at least [`DRAIN`] start times, since pods that start
//! later would be ready after the backlog is drained. This bounds the cost of a slow start: requests that arrive while the
//! first pods take D to start are `load × D` of work, so at most `1 ÷ DRAIN` of the load is added for them, for any D.
//!
//! If ready and pending pods drain the backlog within twice that time, the backlog adds no pod, and no pod is removed
//! before the backlog is drained.
//!
//! Pods for one backlog are requested once, within [`ASK`] after the service time is known. Nothing is added for the queue
//! until all pending pods are ready. While requests are in pods and none has completed, the service time is at least their
//! age, and the count follows that age.

use std::time::Duration;

use crate::{
    Demand, Metric, Observed, Policy, State,
    decide::{loads::Loads, loads::target, pods},
    state::Backlog,
};

/// The drain time in start times.
const DRAIN: u32 = 1;

/// A backlog that the present pods drain within this many drain times adds no pod.
const ENOUGH: f64 = 2.0;

/// The shortest drain time.
const SHORTEST: Duration = Duration::from_secs(3);

/// The shortest drain time while no such request has completed, and only the age of requests is known.
const UNKNOWN: Duration = Duration::from_secs(1);

/// How long the count for a backlog may be corrected after the first request for pods.
const ASK: Duration = Duration::from_secs(1);

/// Assumed pod start time while none is known.
const START: Duration = Duration::from_secs(1);

/// Usual ratio of the target to the capacity of a pod. A backlog may use the rest.
const UTILIZATION: f64 = 0.7;

/// Returns the pods for the load and the backlog together; `None` if the queue adds nothing to `base`, the pods for the load.
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
    let known = state.service.is_representative(demand);
    let shortest = if state.service.matches_running(demand) { SHORTEST } else { UNKNOWN };
    let drain = drain_time(state, shortest).as_secs_f64();
    let within = |work: f64, drain: f64| pods(((load + work / drain) / full).min(loads.at_once));
    // The spare capacity of the ready pods drains part of the backlog before new pods are ready.
    let start = state.starts.time().unwrap_or_default().as_secs_f64();
    let spare = (f64::from(loads.serving) * full - load).max(0.0);
    let left = (work - spare * start).max(0.0);
    let mut former = state.backlogged.unwrap_or(Backlog { since: state.clock, most: 0 });
    if !known {
        former.since = state.clock;
    }
    let mut wanted = within(left, drain).max(former.most);
    let asked = state.clock.saturating_sub(former.since) > ASK && state.starts.any_pending();
    if asked || observed.desired >= within(work, ENOUGH * drain) {
        wanted = wanted.min(observed.desired);
    }
    if wanted <= base {
        return None;
    }
    state.backlogged = Some(Backlog { most: wanted, ..former });
    Some(wanted)
}

/// Returns the time in which a backlog has to be drained.
fn drain_time(state: &State, shortest: Duration) -> Duration {
    state.starts.time_or_bound(state.clock).unwrap_or(START).saturating_mul(DRAIN).max(shortest)
}

/// Returns the concurrency of a pod while there is a backlog: up to its limit, but at most the target divided by
/// [`UTILIZATION`].
fn full(policy: &Policy) -> f64 {
    let target = target(policy);
    let most = policy.limit.map_or(f64::INFINITY, f64::from);
    (target / UTILIZATION).min(most).max(target.min(most)).max(f64::MIN_POSITIVE)
}
