//! A lower bound: a policy that knows every call before it comes.
//!
//! No call is cold and none waits. Calls are packed into pods as in the simulated world, and between two calls a pod stays
//! if that is shorter than a start, and else goes and is started again so that it is ready just then. What is wasted is
//! the starts and those pauses.

use crate::{
    MICROS_PER_SECOND, Micros,
    outcome::{Outcome, Samples},
    pods::{PodId, PodTime, Pods},
    queue::EventQueue,
    trace::{Call, Function},
};

/// Runs it on one function.
pub(crate) fn run(function: &Function, calls: &[Call], end: Micros) -> Outcome {
    let start = (function.start * MICROS_PER_SECOND) as Micros;
    let mut samples = Samples::default();
    let mut pods = Pods::new(function.limit, end);
    let mut done: EventQueue<PodId> = EventQueue::default();
    let mut time = PodTime::default();
    for call in calls {
        while done.next_at().is_some_and(|at| at <= call.at) {
            if let Some((at, pod)) = done.take() {
                pods.finish(pod, at);
            }
        }
        let pod = pods.begin_after(call.at, |idle| {
            if idle < start {
                time.all += idle;
            } else {
                time.all += start;
                time.starts += 1;
            }
        });
        let pod = pod.or_else(|| {
            let new = pods.start(call.at);
            pods.is_ready(new, call.at);
            time.all += start;
            time.starts += 1;
            pods.begin(call.at)
        });
        if let Some(pod) = pod {
            done.put(call.at + Micros::from(call.service), pod);
            samples.note(0, call.service, false);
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
    fn wastes_starts_and_short_pauses() {
        let function = Function { index: 0, kind: "test", limit: 1, start: 0.5, expected: 0.0 };
        let call = |at| Call { at, service: 100_000 };
        // One, one 0.2 s after it, one beside that, and one a minute later.
        let calls = [call(1_000_000), call(1_300_000), call(1_350_000), call(60_000_000)];
        let outcome = run(&function, &calls, 100_000_000);
        assert_eq!((outcome.calls, outcome.cold, outcome.pods.starts), (4, 0, 3));
        assert_eq!(outcome.wasted(), 500_000 + 200_000 + 500_000 + 500_000);
        assert_eq!(outcome.pods.busy, 400_000);
    }
}
