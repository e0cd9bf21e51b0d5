//! Demand in pods.
//!
//! By Little's law the requests that are in pods at once, if none has to wait, are the arrivals per second times the seconds
//! that a request spends in a pod. While there is no queue that is what is in pods now. While there is one, what is in pods
//! says little: it is too little if there are not slots enough, and too much if a backlog is drained beside the load. Then
//! the load is the product. Where that cannot be trusted, since few requests have ended or those in pods are much older than
//! requests become, the load is at least what is in pods without the backlog's part: requests that never end are load, too.
//! It is never more than all requests at once, in pods and in the queue.

use std::time::Duration;

use crate::{Demand, Metric, Observed, Policy, Seen, State, decide::SWIFT, history::Average};

/// Demand in pods: averages and what is at once, divided by the target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loads {
    /// Over the part of the stable window that says something about now.
    pub(crate) stable: f64,
    /// Over the panic window.
    pub(crate) panic: f64,
    /// Over [`SWIFT`].
    pub(crate) swift: f64,
    /// Requests at this moment, in pods and in the queue, whatever the target counts.
    pub(crate) at_once: f64,
    /// Seconds that a request spends in a pod, if it is known.
    pub(crate) service: Option<f64>,
    /// Pods that serve: those that are ready, and one that is not called so yet but has requests.
    pub(crate) serving: u32,
}

impl Loads {
    pub(super) fn of(demand: &Demand, observed: &Observed, policy: &Policy, state: &State) -> Self {
        let telling = state.clock.saturating_sub(state.evidence_from).max(policy.panic_window);
        let service = state.service.seconds(demand);
        let usual = state.service.explains(demand);
        // A backlog is in pods for one service time after the last of it has left the queue, and in a window for as long as
        // that reaches back. It asks for no pod there.
        let drained = service.filter(|_| usual && policy.metric == Metric::Concurrency);
        let draining = |window: Duration| {
            let since = |last| state.clock.saturating_sub(last).saturating_sub(window).as_secs_f64();
            drained.is_some_and(|seconds| state.queued_at.is_some_and(|last| since(last) <= seconds))
        };
        let over = |window: Duration| {
            let average = state.history.average(window);
            let load = load(&average, policy, service, usual) / target(policy);
            let arrived = average.rps * service.unwrap_or(0.0) / target(policy);
            if draining(window) { load.min(arrived.max(f64::from(observed.desired))) } else { load }
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

/// The part of requests that has to be in the queue for what is in pods to say little.
const QUEUED: f64 = 0.05;

fn load(average: &Average, policy: &Policy, service: Option<f64>, usual: bool) -> f64 {
    match (policy.metric, service) {
        (Metric::Concurrency, Some(service)) => {
            let in_pods = match (average.concurrency - average.busy > QUEUED * average.concurrency, usual) {
                (false, _) => average.busy,
                (true, false) => average.busy - (average.completions - average.rps).max(0.0) * service,
                (true, true) => 0.0,
            };
            (average.rps * service).max(in_pods).min(average.concurrency)
        }
        (Metric::Concurrency, None) => average.busy,
        (Metric::Rps, _) => average.rps,
    }
}

/// A target of 0 cannot be written in a Function; were it to come here, one pod for each request is the least harm.
pub(super) fn target(policy: &Policy) -> f64 {
    if policy.target > 0.0 && policy.target.is_finite() { policy.target } else { 1.0 }
}
