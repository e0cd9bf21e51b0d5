//! Demand, measured in pods.
//!
//! By Little's law, the concurrency in pods without queueing is the arrivals per second times the service time. Without a
//! queue, that is the measured concurrency in pods. With a queue, the measured concurrency is no estimate of the load: it is
//! too low if slots are missing, and too high while a backlog is drained in addition to the load. Then the load is the
//! product.
//!
//! The product is not reliable if few requests have completed, or if the requests in pods are much older than the service
//! time. Then the load is at least the concurrency in pods without the part of the backlog, so that requests that never end
//! count as load. The load is at most the concurrency in pods and in the queue.

use std::time::Duration;

use crate::{Demand, Metric, Observed, Policy, Seen, State, decide::SWIFT, history::Average};

/// Averages and the present value of demand, divided by the target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loads {
    /// Over the stable window, or its part since the last rise.
    pub(crate) stable: f64,
    /// Over the panic window.
    pub(crate) panic: f64,
    /// Over [`SWIFT`].
    pub(crate) swift: f64,
    /// Present concurrency in pods and in the queue, for every metric.
    pub(crate) at_once: f64,
    /// Service time in seconds, if known.
    pub(crate) service: Option<f64>,
    /// Pods that serve requests: the ready pods, or one pod that has requests before it is reported ready.
    pub(crate) serving: u32,
}

impl Loads {
    pub(super) fn of(demand: &Demand, observed: &Observed, policy: &Policy, state: &State) -> Self {
        let telling = state.clock.saturating_sub(state.evidence_from).max(policy.panic_window);
        let service = state.service.seconds(demand);
        let usual = state.service.is_representative(demand);
        // The last requests of a backlog are in pods for one service time after the queue is empty; they need no more pods.
        let drained = service.filter(|_| usual && policy.metric == Metric::Concurrency).zip(state.queued_at);
        let over = |window: Duration| {
            let average = state.history.average(window);
            let load = load(&average, policy, service, usual) / target(policy);
            let arrived = average.rps * service.unwrap_or(0.0) / target(policy);
            let draining = drained.is_some_and(|(seconds, queued)| {
                state.clock.saturating_sub(queued).saturating_sub(window).as_secs_f64() <= seconds
            });
            if draining { load.min(arrived.max(f64::from(observed.desired))) } else { load }
        };
        Self {
            stable: over(policy.stable_window.min(telling)),
            panic: over(policy.panic_window),
            swift: over(SWIFT.min(policy.panic_window)),
            at_once: demand.concurrency() as f64 / target(policy),
            service,
            serving: observed.ready.max(u32::from(demand.in_flight > 0)),
        }
    }

    pub(super) fn seen(&self, demand: &Demand, policy: &Policy, state: &State) -> Seen {
        let target = target(policy);
        Seen {
            concurrency: demand.concurrency(),
            queued: demand.queued,
            service: self.service.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            start: state.starts.time(),
            stable: self.stable * target,
            panic: self.panic * target,
            swift: self.swift * target,
            target,
            idle: state.idle(),
        }
    }
}

/// Fraction of requests in the queue from which the concurrency in pods is no estimate of the load.
const QUEUED: f64 = 0.05;

fn load(average: &Average, policy: &Policy, service: Option<f64>, usual: bool) -> f64 {
    if policy.metric == Metric::Rps {
        // The target may exceed what a pod can serve under its concurrency limit, so the concurrency must have slots too.
        let slots = policy.limit.map_or(0.0, |limit| at_once(average, service, usual) / f64::from(limit.max(1)));
        return average.rps.max(slots * target(policy));
    }
    at_once(average, service, usual)
}

/// Returns the concurrency in pods without queueing.
fn at_once(average: &Average, service: Option<f64>, usual: bool) -> f64 {
    match service {
        Some(service) => {
            let in_pods = match (average.concurrency - average.busy > QUEUED * average.concurrency, usual) {
                (false, _) => average.busy,
                (true, false) => average.busy - (average.completions - average.rps).max(0.0) * service,
                (true, true) => 0.0,
            };
            (average.rps * service).max(in_pods).min(average.concurrency)
        }
        None => average.busy,
    }
}

/// Returns the target, or 1 for an invalid one, which the API rejects. One pod per request is the safest fallback.
pub(super) fn target(policy: &Policy) -> f64 {
    if policy.target > 0.0 && policy.target.is_finite() { policy.target } else { 1.0 }
}
