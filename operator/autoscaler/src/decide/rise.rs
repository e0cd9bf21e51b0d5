//! A sudden rise: what short windows want is taken at once and kept for a while.
//!
//! The published algorithm waits for the average over six seconds to want twice the ready pods, and keeps the most that was
//! wanted until a minute after. Here
//! - one second is enough if it wants twice the ready pods, and six if they want four tenths more: a step of ten times has
//!   its count within a second and a half, and no pod that is full waits for the stable window;
//! - requests that have waited for a second though more pods are wanted than there are asked for are a rise as well,
//!   however small it is;
//! - what was before the rise says nothing any more about the load that there is now, so the stable window begins anew
//!   with it;
//! - counts are held no longer than a pod may idle, and each for itself, so that they fall as the demand did.

use crate::{
    Demand, Observed, Policy, Reason, State,
    decide::{Loads, SWIFT, hold, pods},
};

/// A second that wants so many times the ready pods is a rise.
const SWIFT_THRESHOLD: f64 = 2.0;

/// A panic window that wants so many times the ready pods is one: at the usual target of 70 % they are full by then.
const PANIC_THRESHOLD: f64 = 1.4;

/// Pods for the rise that is on, if one is, where a steady load would want `steady`.
pub(super) fn wanted(
    demand: &Demand,
    observed: &Observed,
    steady: u32,
    policy: &Policy,
    state: &mut State,
    loads: &Loads,
) -> Option<(u32, Reason)> {
    let at = state.clock;
    let ready = f64::from(observed.ready.max(1));
    let waiting = observed.ready == 0 && demand.concurrency() > 0;
    let short = state.queued_since.is_some_and(|since| at.saturating_sub(since) >= SWIFT)
        && pods(loads.swift) > observed.desired.min(steady);
    let over = waiting || short || loads.swift >= SWIFT_THRESHOLD * ready || loads.panic >= PANIC_THRESHOLD * ready;
    let before = state.rise;
    if over {
        state.rise = Some(at);
    }
    // As pods come, a rise that goes on is no longer over the threshold. Until the panic window has caught up with it, the
    // last second knows best; after that the stable window does, and what was wanted is only held.
    let count = if at.saturating_sub(state.rise?) <= policy.panic_window {
        let at_once = if waiting { loads.at_once } else { 0.0 };
        pods(loads.swift.max(loads.panic).max(loads.stable).max(at_once))
    } else {
        0
    };
    if over && (before.is_none() || count > state.peaks.most()) {
        state.evidence_from = at.saturating_sub(SWIFT);
    }
    let most = state.peaks.note(at, count, hold(policy));
    if most == 0 {
        state.rise = None;
        state.peaks.forget();
        return None;
    }
    Some((most, if waiting { Reason::Waiting } else { Reason::Panic }))
}
