//! Pods for a sudden rise: the count of short windows is applied at once and held for a limited time.
//!
//! The published algorithm waits until the average over six seconds wants twice the ready pods, and keeps the maximum until
//! a minute later. Differences:
//! - One second is enough if it wants twice the ready pods, and six seconds if they want 40 % more. A tenfold step has its
//!   count within 1.5 seconds, and full pods do not wait for the stable window. Both have to exceed random variation, which
//!   is large at a small target.
//! - Closed-loop clients that start at the same time are a rise that arrivals do not show, since they send requests no faster
//!   than the pods serve them; see [`standing_queue`].
//! - Demand before the rise does not represent the present load, so the stable window restarts with the rise.
//! - Counts are held no longer than an unused pod, and each separately, so that the count falls as the demand did.

use std::time::Duration;

use crate::{
    Demand, Metric, Observed, Policy, State,
    decide::{
        SWIFT,
        loads::{Loads, target},
        pods,
    },
    history::FRAME,
};

/// Threshold of the one-second average: a multiple of the ready pods, and a multiple of the random variation above them.
const SWIFT_THRESHOLD: (f64, f64) = (2.0, 3.0);

/// The same for the panic window: at the usual target of 70 %, pods are full at this load.
const PANIC_THRESHOLD: (f64, f64) = (1.4, 1.0);

/// How long the one-second average is followed after demand exceeded a threshold. New pods soon raise the threshold above a
/// rise that continues. Later, the restarted stable window has enough data.
const FOLLOW: Duration = SWIFT.saturating_mul(2);

/// Returns the pods for the rise in progress, before they are held; 0 without a rise.
pub(super) fn wanted(demand: &Demand, observed: &Observed, policy: &Policy, state: &mut State, loads: &Loads) -> u32 {
    let at = state.clock;
    let ready = f64::from(observed.ready.max(1));
    // The standard deviation of a Poisson process is the square root of its mean.
    let chance = (ready / target(policy)).sqrt();
    let beyond = |load: f64, (times, chances): (f64, f64)| load >= times * ready && load >= ready + chances * chance;
    let standing_queue = standing_queue(demand, policy, state, loads);
    if beyond(loads.swift, SWIFT_THRESHOLD) || beyond(loads.panic, PANIC_THRESHOLD) || standing_queue > observed.desired
    {
        state.rise = Some(at);
    }
    let mut count = 0;
    if state.rise.is_some_and(|last| at.saturating_sub(last) <= FOLLOW) {
        count = pods(loads.swift.max(loads.panic)).max(standing_queue);
        if count > state.peaks.max() {
            // The concurrency in pods before a standing queue was detected does not include the waiting clients.
            let before = if count == standing_queue { Duration::ZERO } else { SWIFT };
            state.evidence_from = at.saturating_sub(before);
        }
    }
    count
}

/// Window in which a standing queue is detected.
const STANDS: Duration = Duration::from_millis(500);

/// A burst has this multiple of the average arrivals in new clients.
const BURST: f64 = 1.5;

/// And this multiple of the arrivals since then, which grow as the first pods start and serve more of the clients.
const BURST_OVER: f64 = 1.25;

/// Returns the pods for closed-loop clients behind a standing queue: a queue that neither grows nor drains while the pods
/// are full. Each response is followed by the next request of the same client, so the arrival rate is the rate of the pods
/// and not a measure of the number of clients. The measure is the burst of their first requests, if the queue still stands
/// half a second later.
///
/// A load that equals the capacity of the pods can have such a queue too, but no burst.
fn standing_queue(demand: &Demand, policy: &Policy, state: &mut State, loads: &Loads) -> u32 {
    let Some(service) = loads.service.filter(|_| policy.limit.is_some()) else { return 0 };
    if demand.queued == 0 || policy.metric == Metric::Rps {
        state.bursts.clear();
        state.arrived.clear();
        return 0;
    }
    let at = state.clock;
    // A burst can be split over two frames.
    let within = (FRAME + Duration::try_from_secs_f64(service).unwrap_or(FRAME)).clamp(2 * FRAME, SWIFT);
    let average = state.history.average(within);
    // A proxy that holds requests back forwards as many as end, so only the arrivals beyond that are new clients.
    let excess = (average.rps - average.completions).max(0.0) * within.as_secs_f64();
    let burst = f64::from(state.bursts.record(at, excess as u32, FOLLOW));
    let most = f64::from(state.arrived.record(at, (average.rps * within.as_secs_f64()) as u32, FOLLOW));
    let lately = state.history.average(STANDS);
    let ended = lately.completions * STANDS.as_secs_f64();
    // Requests are queued only while no slot is free.
    let full = lately.concurrency - lately.busy >= 0.5 * demand.queued as f64;
    let stands = |window: Duration| {
        let average = state.history.average(window);
        let (arrived, ended) = (average.rps * window.as_secs_f64(), average.completions * window.as_secs_f64());
        (arrived - ended).abs() <= (2.0 * ended.sqrt()).max(0.15 * ended) && ended >= 1.0
    };
    let stands = stands(STANDS) && stands(whole_services(service));
    // A wait of less than one frame is not a standing queue.
    let waits = demand.queued as f64 >= ended * FRAME.as_secs_f64() / STANDS.as_secs_f64();
    // A rate that has risen and stays is not a burst.
    let before = state.history.average(policy.panic_window).rps * within.as_secs_f64();
    let stays = lately.rps * within.as_secs_f64();
    let bursts = burst > BURST * before && most > BURST_OVER * stays;
    if !(full && stands && waits && bursts) {
        return 0;
    }
    // With short requests, a client sends several per frame.
    let clients = (burst + lately.busy) * (2.0 * service / FRAME.as_secs_f64()).min(1.0);
    // A client between two requests is not counted, so the present value may be too low.
    let at_once = loads.at_once.max(lately.concurrency / target(policy));
    pods((clients / target(policy)).min(at_once))
}

/// Returns the shortest sufficient window of whole service times. Requests of a burst start and end together, so half a
/// service time would count all of the completions or none.
fn whole_services(service: f64) -> Duration {
    let services = (STANDS.as_secs_f64() / service.max(f64::MIN_POSITIVE)).ceil();
    Duration::try_from_secs_f64(services * service).unwrap_or(STANDS).clamp(STANDS, SWIFT)
}
