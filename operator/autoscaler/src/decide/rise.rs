//! A sudden rise: what short windows want is taken at once and kept for a while.
//!
//! The published algorithm waits for the average over six seconds to want twice the ready pods, and keeps the most that was
//! wanted until a minute after. Here
//! - one second is enough if it wants twice the ready pods, and six if they want four tenths more: a step of ten times has
//!   its count within a second and a half, and no pod that is full waits for the stable window. Either has to be more than
//!   what chance alone does to the few requests of a small target;
//! - requests that have waited for a second though more pods are wanted than there are asked for add some, and again after
//!   another second;
//! - what was before the rise says nothing any more about the load that there is now, so the stable window begins anew
//!   with it;
//! - counts are held no longer than a pod may idle, and each for itself, so that they fall as the demand did.

use std::time::Duration;

use crate::{
    Demand, Observed, Policy, Reason, State,
    decide::{Loads, SWIFT, hold, pods, target},
};

/// A second that wants so many times the ready pods is a rise, and how many times it has to be beyond chance.
const SWIFT_THRESHOLD: (f64, f64) = (2.0, 3.0);

/// The same for a panic window: at the usual target of 70 % pods are full by then.
const PANIC_THRESHOLD: (f64, f64) = (1.4, 1.0);

/// How long the last second is followed after a rise was over a threshold: pods come, so it soon is not, though it goes on.
/// After that the stable window, which begins anew with a rise, knows best.
const FOLLOW: Duration = SWIFT.saturating_mul(2);

/// A queue that stays adds one pod, or one for so many.
const QUEUE_PART: u32 = 8;

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
    let waiting = observed.ready == 0 && demand.concurrency() > 0;
    let ready = f64::from(observed.ready.max(1));
    // Of requests that come by chance there are now and then more, by the root of their number.
    let chance = (ready / target(policy)).sqrt();
    let beyond = |load: f64, (times, chances): (f64, f64)| load >= times * ready && load >= ready + chances * chance;
    let over = waiting || beyond(loads.swift, SWIFT_THRESHOLD) || beyond(loads.panic, PANIC_THRESHOLD);
    if over {
        state.rise = Some(at);
    }
    let mut count = 0;
    if state.rise.is_some_and(|last| at.saturating_sub(last) <= FOLLOW) {
        let at_once = if waiting { loads.at_once } else { 0.0 };
        count = pods(loads.swift.max(loads.panic).max(at_once));
        if count > state.peaks.most() {
            state.evidence_from = at.saturating_sub(SWIFT);
        }
    }
    count = count.max(queue(observed, steady, state, loads));
    if count == 0 && state.rise.is_none() {
        return None;
    }
    // What a queue adds was never over a threshold: it is not followed but only held.
    state.rise.get_or_insert(Duration::ZERO);
    let most = state.peaks.note(at, count, hold(policy));
    if most == 0 {
        state.rise = None;
        state.peaks.forget();
        return None;
    }
    Some((most, if waiting { Reason::Waiting } else { Reason::Panic }))
}

/// What a queue that stays adds, each time it has stayed for a second. 0 while there is none.
fn queue(observed: &Observed, steady: u32, state: &mut State, loads: &Loads) -> u32 {
    let stays = state.queued_since.is_some_and(|since| state.clock.saturating_sub(since) >= SWIFT);
    let wanted = pods(loads.swift);
    if !stays || wanted <= observed.desired.min(steady) {
        return 0;
    }
    state.queued_since = Some(state.clock);
    wanted.min(observed.desired.saturating_add((observed.desired / QUEUE_PART).max(1)))
}
