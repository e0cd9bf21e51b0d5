use super::*;

mod cluster;

const SECOND: Micros = 1_000_000;

/// Wants one pod from the first call on, and none from a time on.
struct One {
    until: Micros,
}

impl Scaler for One {
    fn hears(&self) -> Hears {
        Hears::Nothing
    }

    fn wake(&mut self, view: &View<'_>) -> Order {
        Order { pods: 1, again: Some(self.until).filter(|at| *at > view.now) }
    }

    fn decide(&mut self, view: &View<'_>) -> Order {
        Order { pods: u32::from(view.now < self.until), again: None }
    }
}

fn function(limit: u32) -> Function {
    Function { index: 0, kind: "test", limit, start: 0.4, expected: 0.0 }
}

fn call(at: Micros, service: u32) -> Call {
    Call { at, service }
}

#[test]
fn calls_wait_for_the_pod_and_then_for_one_another() {
    let calls = [call(SECOND, 500_000), call(SECOND, 500_000), call(60 * SECOND, 500_000)];
    let outcome = run(&function(1), &calls, 100 * SECOND, 1, &mut One { until: 50 * SECOND });
    assert_eq!((outcome.calls, outcome.cold), (3, 3));
    // The second waited for the same pod as the first; the third came when it was gone.
    assert_eq!(outcome.pods.starts, 2);
    assert_eq!(outcome.pods.busy, 1_500_000);
    assert!((49 * SECOND..90 * SECOND).contains(&outcome.pods.all), "{}", outcome.pods.all);
    let wanted: Vec<_> = outcome.wanted.iter().map(|(at, count)| (at / SECOND, *count)).collect();
    assert_eq!(wanted, [(0, 0), (1, 1), (50, 0), (60, 1)]);
}

#[test]
fn a_pod_with_two_places_takes_both_at_once() {
    let calls = [call(0, 500_000), call(0, 500_000)];
    let outcome = run(&function(2), &calls, 100 * SECOND, 1, &mut One { until: 50 * SECOND });
    assert_eq!((outcome.cold, outcome.pods.busy), (2, 500_000));
}

#[test]
fn what_has_come_is_answered_beyond_the_end() {
    let calls = [call(9 * SECOND, 20_000_000), call(9 * SECOND, 20_000_000)];
    let outcome = run(&function(1), &calls, 10 * SECOND, 1, &mut One { until: 1_000 * SECOND });
    assert_eq!(outcome.calls, 2);
    assert_eq!(outcome.pods.all, SECOND);
    assert!(outcome.pods.busy < SECOND);
}

/// Keeps what a policy is shown at each frame.
#[derive(Default)]
struct Spy {
    seen: Vec<(Micros, u64, u64, u64, u64)>,
}

impl Scaler for Spy {
    fn hears(&self) -> Hears {
        Hears::Frames
    }

    fn wake(&mut self, _: &View<'_>) -> Order {
        Order { pods: 1, again: None }
    }

    fn decide(&mut self, view: &View<'_>) -> Order {
        self.seen.push((view.now, view.completions, view.request_us, view.busy_us, view.served_us));
        Order { pods: 1, again: None }
    }
}

#[test]
fn work_is_counted_apart_from_waiting() {
    let calls = [call(0, 500_000), call(0, 500_000)];
    let mut spy = Spy::default();
    run(&function(1), &calls, 100 * SECOND, 1, &mut spy);
    let (ended, completions, request_us, busy_us, served_us) = *spy.seen.last().unwrap();
    let start = ended - SECOND;
    assert_eq!((completions, busy_us, served_us), (2, SECOND, SECOND));
    // Both wait for the pod, and one of them for the other.
    assert_eq!(request_us, SECOND + 2 * start + 500_000);
    assert!(
        spy.seen.iter().all(|(_, _, request_us, busy_us, served_us)| busy_us <= request_us && served_us <= busy_us)
    );
}

#[test]
fn nothing_happens_without_calls() {
    let outcome = run(&function(1), &[], 10 * SECOND, 1, &mut One { until: SECOND });
    assert_eq!((outcome.calls, outcome.pods.all, outcome.pods.starts), (0, 0, 0));
}

/// Waits in a queue before one server have a known distribution if calls and their lengths are memoryless: what is
/// longer than t is a part of `load * exp(-(1 - load) * t / service)`.
#[test]
fn a_queue_waits_as_long_as_theory_says() {
    use rand_distr::{Distribution as _, Exp1};
    let random = &mut stream(1, 0, Purpose::Calls);
    let (load, service) = (0.7, 0.1);
    let mut at = 0.0;
    let mut calls = Vec::new();
    for _ in 0..400_000 {
        let (gap, long): (f64, f64) = (Exp1.sample(random), Exp1.sample(random));
        at += gap * service / load;
        calls.push(call((at * 1e6) as Micros, (long * service * 1e6) as u32));
    }
    let end = (at * 1e6) as Micros + SECOND;
    let outcome = run(&function(1), &calls, end, 1, &mut One { until: Micros::MAX });
    assert_eq!(outcome.waits.percentile(0.29).to_bits(), 0);
    for part in [0.5, 0.9, 0.99] {
        let expected = (load / (1.0 - part)).ln() * service / (1.0 - load) * 1e6;
        let seen = outcome.waits.percentile(part);
        assert!((seen / expected - 1.0).abs() < 0.05, "{part}: {seen} and not {expected}");
    }
    let busy = outcome.pods.busy as f64 / outcome.pods.all as f64;
    assert!((busy - load).abs() < 0.01, "{busy}");
}
