//! A sudden rise: what short windows want is taken at once and kept for a while.
//!
//! The published algorithm waits for the average over six seconds to want twice the ready pods, and keeps the most that was
//! wanted until a minute after. Here
//! - one second is enough if it wants twice the ready pods, and six if they want four tenths more: a step of ten times has
//!   its count within a second and a half, and no pod that is full waits for the stable window. Either has to be more than
//!   what chance alone does to the few requests of a small target;
//! - clients that all wait at once and call again as soon as they were answered are a rise that arrivals do not show, since
//!   they arrive no faster than they are served; see [`standing`];
//! - what was before the rise says nothing any more about the load that there is now, so the stable window begins anew
//!   with it;
//! - counts are held no longer than a pod may idle, and each for itself, so that they fall as the demand did.

use std::time::Duration;

use crate::{
    Demand, Metric, Observed, Policy, State,
    decide::{
        SWIFT,
        loads::{Loads, target},
        pods,
    },
    peaks::Peaks,
};

/// A second that wants so many times the ready pods is a rise, and how many times it has to be beyond chance.
const SWIFT_THRESHOLD: (f64, f64) = (2.0, 3.0);

/// The same for a panic window: at the usual target of 70 % pods are full by then.
const PANIC_THRESHOLD: (f64, f64) = (1.4, 1.0);

/// How long the last second is followed after a rise was over a threshold: pods come, so it soon is not, though it goes on.
/// After that the stable window, which begins anew with a rise, knows best.
const FOLLOW: Duration = SWIFT.saturating_mul(2);

/// Pods that the rise wants that is on, before they are held; 0 if none is on.
pub(super) fn wanted(demand: &Demand, observed: &Observed, policy: &Policy, state: &mut State, loads: &Loads) -> u32 {
    let at = state.clock;
    let ready = f64::from(observed.ready.max(1));
    // Of requests that come by chance there are now and then more, by the root of their number.
    let chance = (ready / target(policy)).sqrt();
    let beyond = |load: f64, (times, chances): (f64, f64)| load >= times * ready && load >= ready + chances * chance;
    let standing = standing(demand, policy, state, loads);
    if beyond(loads.swift, SWIFT_THRESHOLD) || beyond(loads.panic, PANIC_THRESHOLD) || standing > observed.desired {
        state.rise = Some(at);
    }
    let mut count = 0;
    if state.rise.is_some_and(|last| at.saturating_sub(last) <= FOLLOW) {
        count = pods(loads.swift.max(loads.panic)).max(standing);
        if count > state.peaks.most() {
            // What was in pods before it is known that a queue stands says nothing of those who wait.
            let before = if count == standing { Duration::ZERO } else { SWIFT };
            state.evidence_from = at.saturating_sub(before);
        }
    }
    count
}

/// What is looked at to see whether a queue stands.
const STANDS: Duration = Duration::from_millis(500);

/// A burst has more new clients than so many times the arrivals of as long a time on average.
const BURST: f64 = 1.5;

/// And more arrivals than so many times those since: as the first pods come, more of the clients get their turn.
const BURST_OVER: f64 = 1.25;

/// Frames of demand come so often, and a burst falls into one.
const FRAME: Duration = Duration::from_millis(250);

/// Pods for clients that came at once and stay: a queue that neither grows nor drains while the pods are full. Each request
/// that ends is followed by the next one of the same client, so arrivals are what the pods serve and say nothing of how many
/// clients there are. What says it is the burst in which they came, if the queue still stands half a second after it.
///
/// A load that by chance is just what the pods serve has such a queue too, but no burst.
fn standing(demand: &Demand, policy: &Policy, state: &mut State, loads: &Loads) -> u32 {
    let Some(service) = loads.service.filter(|_| policy.limit.is_some()) else { return 0 };
    if demand.queued == 0 || policy.metric == Metric::Rps {
        (state.bursts, state.arrived) = (Peaks::default(), Peaks::default());
        return 0;
    }
    let at = state.clock;
    // A burst can be on both sides of a frame's end.
    let within = (FRAME + Duration::try_from_secs_f64(service).unwrap_or(FRAME)).clamp(2 * FRAME, SWIFT);
    let average = state.history.average(within);
    // A proxy that holds requests back lets as many through as end, so only those beyond that are new clients.
    let excess = (average.rps - average.completions).max(0.0) * within.as_secs_f64();
    let burst = f64::from(state.bursts.note(at, excess as u32, FOLLOW));
    let most = f64::from(state.arrived.note(at, (average.rps * within.as_secs_f64()) as u32, FOLLOW));
    let lately = state.history.average(STANDS);
    let ended = lately.completions * STANDS.as_secs_f64();
    // Requests wait only while no slot is free.
    let full = lately.concurrency - lately.busy >= 0.5 * demand.queued as f64;
    let stands = |window: Duration| {
        let average = state.history.average(window);
        let (arrived, ended) = (average.rps * window.as_secs_f64(), average.completions * window.as_secs_f64());
        (arrived - ended).abs() <= (2.0 * ended.sqrt()).max(0.15 * ended) && ended >= 1.0
    };
    let stands = stands(STANDS) && stands(whole_services(service));
    // Less than a frame's wait is no queue to speak of.
    let waits = demand.queued as f64 >= ended * FRAME.as_secs_f64() / STANDS.as_secs_f64();
    // A rate that has risen and stays is no burst.
    let before = state.history.average(policy.panic_window).rps * within.as_secs_f64();
    let stays = lately.rps * within.as_secs_f64();
    let bursts = burst > BURST * before && most > BURST_OVER * stays;
    if !(full && stands && waits && bursts) {
        return 0;
    }
    // Of short requests a client sends several in a frame.
    let clients = (burst + lately.busy) * (2.0 * service / FRAME.as_secs_f64()).min(1.0);
    // Between two requests a client is none, so a moment may show one less than there are.
    let at_once = loads.at_once.max(lately.concurrency / target(policy));
    pods((clients / target(policy)).min(at_once))
}

/// The shortest time of whole service times that is long enough: of a burst requests begin and end together, and in half a
/// service time more would end as many as in a whole one, or none.
fn whole_services(service: f64) -> Duration {
    let services = (STANDS.as_secs_f64() / service.max(f64::MIN_POSITIVE)).ceil();
    Duration::try_from_secs_f64(services * service).unwrap_or(STANDS).clamp(STANDS, SWIFT)
}
