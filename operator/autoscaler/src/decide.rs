//! Computes the replica count of a revision: the order of the steps, the floors and the time of the next decision.

use std::time::Duration;

use crate::{Decision, Demand, Observed, Policy, Reason, State};
use loads::Loads;

/// Fraction of a pod that is ignored when rounding up. Demand frames are late by some milliseconds, which at a target of 1
/// would request one more pod now and then.
const SLACK: f64 = 0.01;

/// The shortest window of a rise.
const SWIFT: Duration = Duration::from_secs(1);

/// Interval of reviews while pods run and demand is in the windows: averages fall as time passes.
const REVIEW: Duration = Duration::from_secs(1);

/// Interval of reviews while the present demand exceeds the pods.
const REVIEW_SHORT: Duration = Duration::from_millis(250);

/// Decides how many pods a revision should have at `now`. To be invoked on every change of an input and at
/// [`Decision::wake_at`].
///
/// - While requests are in flight or queued, and until `idle_timeout` after the last request, there is at least one pod.
/// - After `idle_timeout` without a request there is no pod, except for `min`, a schedule, `initial`, a rollout, and (with
///   `prewarm`) a time in which a request is likely.
/// - While the first pod is starting, the idle timeout does not run: a request that gave up waiting would otherwise remove
///   the pod that the next one needs.
/// - In between, the count is demand over the windows divided by the target; see the modules `loads`, `rise` and `steady`.
/// - Queued requests add pods for their work; see the modules `cold` and `backlog`. Pending pods count.
/// - Pods that would not help are not requested; see the module `growth`.
/// - After a restart or a gap in the observation, the present count is the minimum until a full stable window has been
///   observed or the idle timeout has expired.
///
/// `max` takes precedence over all of this, and `paused` over `max`.
pub fn decide(now: Duration, demand: &Demand, observed: &Observed, policy: &Policy, state: &mut State) -> Decision {
    state.advance(now);
    let at = state.clock;
    let busy = demand.concurrency() > 0;
    let active = record_activity(demand, observed, policy, state);
    state.history.record(at, demand, policy.stable_window, policy.panic_window);
    state.starts.record(at, observed);
    state.service.record(at, demand, policy.stable_window);
    if demand.queued > 0 {
        state.queued_at = Some(at);
    } else {
        // Also while paused or idle: pods requested for one queue do not count for the next one.
        state.backlogged = None;
    }
    let loads = Loads::of(demand, observed, policy, state);
    if loads.serving == 0 && demand.queued > 0 {
        state.waiting_since.get_or_insert(at);
    } else {
        state.waiting_since = None;
    }

    let idle = !busy && state.idle() >= policy.idle_timeout;
    let mut prewarm = None;
    let (mut replicas, mut reason) = if policy.paused {
        (observed.desired, Reason::Paused)
    } else if idle {
        state.reset_demand();
        prewarm = Prewarm::of(policy, state);
        if prewarm.is_some_and(|prewarm| prewarm.now) { (1, Reason::Prewarmed) } else { (0, Reason::Idle) }
    } else {
        serve(demand, observed, policy, state, &loads)
    };
    if !policy.paused {
        // An average does not decide between zero and one. From zero, only a request since the previous decision starts a
        // pod; otherwise the idle timeout keeps the last pod.
        if !idle && replicas <= 1 && !busy {
            let kept = active || observed.desired > 0;
            let why = if state.starting { Reason::Starting } else { Reason::KeptWarm };
            (replicas, reason) = if kept { (1, why) } else { (0, Reason::Idle) };
        }
        if replicas == 0 && active {
            (replicas, reason) = (1, Reason::Load);
        }
        let floors = [
            (policy.initial, Reason::Initial),
            (policy.held, Reason::Rollout),
            (policy.scheduled, Reason::Scheduled),
            (policy.min, Reason::Min),
        ];
        for (floor, why) in floors {
            // Held pods are recorded as a rise; the reported reason is the rollout.
            if floor > replicas || (why == Reason::Rollout && floor == replicas && reason == Reason::Panic) {
                (replicas, reason) = (floor, why);
            }
        }
        if replicas > policy.max {
            (replicas, reason) = (policy.max, Reason::Max);
        }
    }

    let idle_at = state.last_active.saturating_add(policy.idle_timeout);
    let review = if policy.paused || idle || (!busy && only_idle_timeout_pending(observed, state, &loads)) {
        None
    } else {
        let short = busy && loads.at_once > f64::from(observed.desired) && replicas < policy.max;
        Some(at.saturating_add(if short { REVIEW_SHORT } else { REVIEW }))
    };
    let due = if policy.paused || busy {
        // The idle timeout is not running, so only the review is due.
        review
    } else if idle {
        prewarm.map(|prewarm| prewarm.changes)
    } else {
        Some(review.map_or(idle_at, |review| review.min(idle_at)))
    };
    state.review = review;
    state.desired = Some((observed.desired, replicas));
    Decision {
        replicas,
        reason,
        wake_at: due.map(|due| state.to_external_time(due)),
        seen: loads.seen(demand, policy, state),
    }
}

/// Records activity. Returns whether there is a request, or was one since the previous decision.
fn record_activity(demand: &Demand, observed: &Observed, policy: &Policy, state: &mut State) -> bool {
    let at = state.clock;
    let active = demand.concurrency() > 0 || state.arrivals.is_some_and(|before| before != demand.arrivals);
    // A count that another client raised from zero is an activator's wake for a request whose demand frame may not have
    // arrived. The idle timeout restarts, so that the pods are not removed before they are used.
    let woken = observed.desired > 0 && state.desired == Some((0, 0));
    if active || woken {
        if policy.prewarm.is_some() && state.active_known && state.idle() >= policy.idle_timeout {
            let idle = state.idle();
            state.idle_histogram.get_or_insert_with(Box::default).record(idle);
        }
        state.last_active = at;
        state.active_known = true;
    }
    if woken {
        state.rise = Some(at);
        state.record_expected(observed.desired, hold_time(policy));
    }
    let started = state.starting;
    state.was_ready = observed.desired > 0 && (state.was_ready || observed.ready > 0);
    state.starting = policy.starting && observed.desired > 0 && !state.was_ready;
    if state.starting || started {
        // The idle timeout starts when a pod could serve for the first time.
        state.last_active = at;
    }
    if policy.held > 0 {
        // The requests of the rollout are expected: they count as activity, so that the pods are not removed as they arrive.
        state.last_active = at;
        state.rise = Some(at);
        state.record_expected(policy.held.min(policy.max), hold_time(policy));
    }
    state.arrivals = Some(demand.arrivals);
    active
}

/// Rounds a load up to whole pods.
pub(crate) fn pods(load: f64) -> u32 {
    // The cast saturates, and maps NaN to zero.
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
    if let Some(held) = state.record_peak(bounded(wanted), hold_time(policy)).filter(|held| *held >= replicas) {
        let held_only = held > wanted;
        (replicas, reason) = (held, if held_only { state.peak_reason } else { why });
        state.peak_reason = reason;
    }
    // While requests are queued and the pods for them are not known, pending pods are not removed.
    if demand.queued > 0 && (waiting || loads.service.is_none()) && observed.desired > replicas {
        (replicas, reason) = (observed.desired, Reason::Waiting);
    }
    let delayed = state.delayed_max.record(at, replicas, policy.scale_down_delay);
    if delayed > replicas {
        (replicas, reason) = (delayed, Reason::Delayed);
    }
    if at.saturating_sub(state.observed_since) < policy.stable_window && observed.desired > replicas {
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

/// Returns how long the pods of a rise are kept: no longer than an unused last pod.
pub(crate) fn hold_time(policy: &Policy) -> Duration {
    policy.idle_timeout.min(policy.stable_window).max(policy.panic_window)
}

/// Returns whether only the idle timeout will change the count: no demand in the windows and no rise in progress.
fn only_idle_timeout_pending(observed: &Observed, state: &State, loads: &Loads) -> bool {
    observed.desired <= 1 && state.rise.is_none() && pods(loads.stable) <= 1 && state.delayed_max.max() <= 1
}

/// Pre-warming of an idle function.
#[derive(Clone, Copy, Debug)]
struct Prewarm {
    /// Whether a request is likely now.
    now: bool,
    /// When `now` changes.
    changes: Duration,
}

impl Prewarm {
    fn of(policy: &Policy, state: &State) -> Option<Self> {
        let window = state.idle_histogram.as_deref()?.prewarm_window(policy.prewarm?, policy.idle_timeout)?;
        let idle = state.idle();
        // After a restart the idle time may be unknown, and so is the start of a later window.
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

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
