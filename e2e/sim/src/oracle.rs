//! The oracle: a lower bound, which knows all requests in advance.
//!
//! No request is cold or queued. Requests are packed into pods as in the simulated world. Between two requests a pod is kept
//! if the gap is shorter than a start; otherwise the pod is removed and started again just in time. The waste is the starts
//! and these gaps.

use crate::{
    micros::{MICROS_PER_SECOND, Micros},
    outcome::{Outcome, Samples},
    pods::{PodId, PodTime, Pods},
    queue::EventQueue,
    request::{Arrival, Function},
};

/// Runs the oracle on one function.
pub(crate) fn run(function: &Function, requests: &[Arrival], end: Micros) -> Outcome {
    let start = (function.start * MICROS_PER_SECOND) as Micros;
    let mut samples = Samples::default();
    let mut pods = Pods::new(function.limit, end);
    let mut done: EventQueue<PodId> = EventQueue::default();
    let mut time = PodTime::default();
    for arrival in requests {
        while done.next_at().is_some_and(|at| at <= arrival.at) {
            if let Some((at, pod)) = done.take() {
                pods.finish(pod, at);
            }
        }
        let pod = pods.begin_after(arrival.at, |idle| {
            if idle < start {
                time.all += idle;
            } else {
                time.all += start;
                time.starts += 1;
            }
        });
        let pod = pod.or_else(|| {
            let new = pods.start(arrival.at);
            pods.is_ready(new, arrival.at);
            time.all += start;
            time.starts += 1;
            pods.begin(arrival.at)
        });
        if let Some(pod) = pod {
            done.put(arrival.at + Micros::from(arrival.service), pod);
            samples.record(0, arrival.service, false);
        }
    }
    while let Some((at, pod)) = done.take() {
        pods.finish(pod, at);
    }
    time.busy = pods.time(end).busy;
    time.all += time.busy;
    Outcome::new(samples, time, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waste_is_starts_and_short_gaps() {
        let function = Function { index: 0, kind: "test", limit: 1, start: 0.5, expected: 0.0 };
        let arrival = |at| Arrival { at, service: 100_000 };
        // One request, one 0.2 s after it, one concurrent with that, and one a minute later.
        let requests = [arrival(1_000_000), arrival(1_300_000), arrival(1_350_000), arrival(60_000_000)];
        let outcome = run(&function, &requests, 100_000_000);
        assert_eq!((outcome.requests, outcome.cold, outcome.pods.starts), (4, 0, 3));
        assert_eq!(outcome.wasted(), 500_000 + 200_000 + 500_000 + 500_000);
        assert_eq!(outcome.pods.busy, 400_000);
    }
}
