//! The decision.

use std::time::Duration;

use crate::{Decision, Demand, Observed, Policy, Reason, State};
use loads::Loads;

/// A hundredth of a pod is no pod. Frames are late by some milliseconds, and at a target of 1 that alone would ask for one
/// more now and then.
const SLACK: f64 = 0.01;

/// The shortest window: what is at once has to last so long to be a rise.
const SWIFT: Duration = Duration::from_secs(1);

/// While pods are there and demand is in the windows, averages fall by the mere passing of time, so they are looked at
/// again this often.
const REVIEW: Duration = Duration::from_secs(1);

/// The same while there is more at once than the pods are for.
const HURRY: Duration = Duration::from_millis(250);

/// Decides how many pods a revision should have at `now`. Meant to be called for everything that changes and at
/// [`Decision::wake_at`].
///
/// - While anything is in flight or queued, and until `idle_timeout` after the last request, there is at least one pod.
/// - After `idle_timeout` without a request there are none, but for `min`, a schedule, `initial` while the revision is being
///   proven, and (with `prewarm`) a time in which a call is likely.
/// - In between, demand over the windows divided by the target; see the modules `loads`, `rise` and `steady`.
/// - While requests wait: what their work adds; see the modules `cold` and `backlog`. Pods that are on their way count.
/// - No more than is of use; see the module `growth`.
/// - After a restart, or when nobody has watched for a while, the present count is the floor until a whole stable window
///   has been seen (or the idle time-out is over, which is a whole window of its own).
///
/// `max` wins over all of this, and `paused` over that.
pub fn decide(now: Duration, demand: &Demand, observed: &Observed, policy: &Policy, state: &mut State) -> Decision {
    state.advance(now);
    let at = state.clock;
    let busy = demand.concurrency() > 0;
    let called = notice(demand, observed, policy, state);
    state.history.record(at, demand, policy.stable_window, policy.panic_window);
    state.starts.note(at, observed);
    state.service.note(at, demand, policy.stable_window);
    if demand.queued > 0 {
        state.queued_at = Some(at);
    }
    let loads = Loads::of(demand, observed, policy, state);
    if loads.serving == 0 && demand.queued > 0 {
        state.waiting_since.get_or_insert(at);
    } else {
        state.waiting_since = None;
    }

    let idle = !busy && state.idle() >= policy.idle_timeout;
    let mut likely = None;
    let (mut replicas, mut reason) = if policy.paused {
        (observed.desired, Reason::Paused)
    } else if idle {
        state.rest();
        likely = Likely::of(policy, state);
        if likely.is_some_and(|likely| likely.now) { (1, Reason::Prewarmed) } else { (0, Reason::Idle) }
    } else {
        serve(demand, observed, policy, state, &loads)
    };
    if !policy.paused {
        // Whether there is to be a pod at all is not for an average to say. From zero, only a request that is there now (or
        // was since the decision before) starts one; with a pod there, the idle time-out keeps the last one.
        if !idle && replicas <= 1 && !busy {
            let kept = called || observed.desired > 0;
            (replicas, reason) = if kept { (1, Reason::KeptWarm) } else { (0, Reason::Idle) };
        }
        if replicas == 0 && called {
            (replicas, reason) = (1, Reason::Load);
        }
        let floors = [
            (policy.initial, Reason::Initial),
            (policy.held, Reason::Rollout),
            (policy.scheduled, Reason::Scheduled),
            (policy.min, Reason::Min),
        ];
        for (floor, why) in floors {
            // What is held counts as a rise, too, and is not to be told as one.
            if floor > replicas || (why == Reason::Rollout && floor == replicas && reason == Reason::Panic) {
                (replicas, reason) = (floor, why);
            }
        }
        if replicas > policy.max {
            (replicas, reason) = (policy.max, Reason::Max);
        }
    }

    let idle_at = state.last_active.saturating_add(policy.idle_timeout);
    let review = if policy.paused || idle || (!busy && quiet(observed, state, &loads)) {
        None
    } else {
        let short = busy && loads.at_once > f64::from(observed.desired) && replicas < policy.max;
        Some(at.saturating_add(if short { HURRY } else { REVIEW }))
    };
    let due = if policy.paused || busy {
        // The idle time-out is not running: the review is all that time brings.
        review
    } else if idle {
        likely.map(|likely| likely.changes)
    } else {
        Some(review.map_or(idle_at, |review| review.min(idle_at)))
    };
    state.review = review;
    state.desired = Some((observed.desired, replicas));
    Decision { replicas, reason, wake_at: due.map(|due| state.by_caller(due)), seen: loads.seen(demand, policy, state) }
}

/// Takes in what says that somebody calls. Yields whether a request is there or was since the decision before.
fn notice(demand: &Demand, observed: &Observed, policy: &Policy, state: &mut State) -> bool {
    let at = state.clock;
    let called = demand.concurrency() > 0 || state.arrivals.is_some_and(|before| before != demand.arrivals);
    // A count that left zero by another's hand (an activator's wake) means a call whose frame may still be on its way: the
    // idle time-out begins anew, lest the pods go before they were of use.
    let woken = observed.desired > 0 && state.desired == Some((0, 0));
    if called || woken {
        if policy.prewarm.is_some() && state.active_known && state.idle() >= policy.idle_timeout {
            let idle = state.idle();
            state.habits.get_or_insert_with(Box::default).record(idle);
        }
        state.last_active = at;
        state.active_known = true;
    }
    if woken {
        state.rise = Some(at);
        state.peaks.note(at, observed.desired, hold(policy));
    }
    if policy.held > 0 {
        // Its calls are on their way: as if they were here, lest the pods go in the moment in which they come.
        state.last_active = at;
        state.rise = Some(at);
        state.peaks.note(at, policy.held.min(policy.max), hold(policy));
    }
    state.arrivals = Some(demand.arrivals);
    called
}

/// Whole pods for a load.
pub(crate) fn pods(load: f64) -> u32 {
    // From outside of the range, and from what is no number, a cast yields the end of the range or zero.
    (load - SLACK).ceil() as u32
}

fn serve(demand: &Demand, observed: &Observed, policy: &Policy, state: &mut State, loads: &Loads) -> (u32, Reason) {
    let at = state.clock;
    let bound = growth::bound(demand, observed, policy, state, loads);
    let bounded = |count: u32| bound.map_or(count, |(most, _)| count.min(most));
    let steady = steady::wanted(observed, policy, state, loads);
    let (mut replicas, mut reason) = (bounded(steady), Reason::Load);
    let (mut wanted, mut why) = (rise::wanted(demand, observed, policy, state, loads), Reason::Panic);
    let waiting = loads.serving == 0 && demand.queued > 0;
    if waiting {
        let cold = cold::wanted(demand, policy, state, loads);
        if cold >= wanted {
            (wanted, why) = (cold, Reason::Waiting);
        }
    } else if let Some(backlog) = backlog::wanted(demand, observed, steady.max(wanted), policy, state, loads) {
        (wanted, why) = (backlog, Reason::Backlog);
    }
    if let Some(held) = state.hold(bounded(wanted), hold(policy)).filter(|held| *held >= replicas) {
        let held_only = held > wanted;
        (replicas, reason) = (held, if held_only { state.why } else { why });
        state.why = reason;
    }
    // As long as requests wait and nothing says how many pods they need, those that are on their way are not taken away.
    if demand.queued > 0 && (waiting || loads.service.is_none()) && observed.desired > replicas {
        (replicas, reason) = (observed.desired, Reason::Waiting);
    }
    let delayed = state.delayed.note(at, replicas, policy.scale_down_delay);
    if delayed > replicas {
        (replicas, reason) = (delayed, Reason::Delayed);
    }
    if at.saturating_sub(state.since) < policy.stable_window && observed.desired > replicas {
        (replicas, reason) = (observed.desired, Reason::Learning);
    }
    if let Some((most, limited)) = bound
        && replicas <= most
        && (steady.max(wanted) > most || (limited == Reason::WaitingForCapacity && replicas > loads.serving))
    {
        reason = limited;
    }
    (replicas, reason)
}

/// How long what a rise wanted is kept: a pod that nobody has needed for the idle time-out goes, be it the last one or not.
pub(crate) fn hold(policy: &Policy) -> Duration {
    policy.idle_timeout.min(policy.stable_window).max(policy.panic_window)
}

/// Whether nothing but the idle time-out will change the count: no demand in the windows and no rise under way.
fn quiet(observed: &Observed, state: &State, loads: &Loads) -> bool {
    observed.desired <= 1 && state.rise.is_none() && pods(loads.stable) <= 1 && state.delayed.most() <= 1
}

/// What habits say of an idle function.
#[derive(Clone, Copy, Debug)]
struct Likely {
    /// Whether a call is likely now.
    now: bool,
    /// When that changes.
    changes: Duration,
}

impl Likely {
    fn of(policy: &Policy, state: &State) -> Option<Self> {
        let window = state.habits.as_deref()?.paying(policy.prewarm?, policy.idle_timeout)?;
        let idle = state.idle();
        // How long it has been idle is not known after a restart, so what is due at a certain time of it is not either.
        if idle >= window.until || (window.from > policy.idle_timeout && !state.active_known) {
            return None;
        }
        let now = idle >= window.from;
        let changes = state.last_active.saturating_add(if now { window.until } else { window.from });
        Some(Self { now, changes })
    }
}

mod backlog;
mod cold;
mod growth;
mod loads;
mod rise;
mod steady;

pub(crate) use backlog::Backlog;
pub(crate) use growth::Throughput;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
