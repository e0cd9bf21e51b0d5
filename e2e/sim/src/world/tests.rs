use super::*;

mod cluster;

const SECOND: Micros = 1_000_000;

/// Wants one pod from the first request on, and none from a time on.
struct One {
    until: Micros,
}

impl Scaler for One {
    fn trigger(&self) -> Trigger {
        Trigger::Poll
    }

    fn wake(&mut self, view: &View<'_>) -> Decision {
        Decision { pods: 1, decide_at: Some(self.until).filter(|at| *at > view.now) }
    }

    fn decide(&mut self, view: &View<'_>) -> Decision {
        Decision { pods: u32::from(view.now < self.until), decide_at: None }
    }
}

fn function(limit: u32) -> Function {
    Function { index: 0, kind: "test", limit, start: 0.4, expected: 0.0 }
}

fn arrival(at: Micros, service: u32) -> Arrival {
    Arrival { at, service }
}

#[test]
fn requests_wait_for_the_pod_and_then_for_each_other() {
    let requests = [arrival(SECOND, 500_000), arrival(SECOND, 500_000), arrival(60 * SECOND, 500_000)];
    let outcome = run(&function(1), &requests, 100 * SECOND, 1, &mut One { until: 50 * SECOND });
    assert_eq!((outcome.requests, outcome.cold), (3, 3));
    // The second waited for the same pod as the first; the third arrived when it was removed.
    assert_eq!(outcome.pods.starts, 2);
    assert_eq!(outcome.pods.busy, 1_500_000);
    assert!((49 * SECOND..90 * SECOND).contains(&outcome.pods.all), "{}", outcome.pods.all);
    let wanted: Vec<_> = outcome.wanted.iter().map(|(at, count)| (at / SECOND, *count)).collect();
    assert_eq!(wanted, [(0, 0), (1, 1), (50, 0), (60, 1)]);
}

#[test]
fn a_pod_with_two_slots_serves_two_requests_concurrently() {
    let requests = [arrival(0, 500_000), arrival(0, 500_000)];
    let outcome = run(&function(2), &requests, 100 * SECOND, 1, &mut One { until: 50 * SECOND });
    assert_eq!((outcome.cold, outcome.pods.busy), (2, 500_000));
}

#[test]
fn requests_are_completed_after_the_end() {
    let requests = [arrival(9 * SECOND, 20_000_000), arrival(9 * SECOND, 20_000_000)];
    let outcome = run(&function(1), &requests, 10 * SECOND, 1, &mut One { until: 1_000 * SECOND });
    assert_eq!(outcome.requests, 2);
    assert_eq!(outcome.pods.all, SECOND);
    assert!(outcome.pods.busy < SECOND);
}

/// Records the view of a policy at each frame.
#[derive(Default)]
struct Spy {
    seen: Vec<(Micros, u64, u64, u64, u64)>,
}

impl Scaler for Spy {
    fn trigger(&self) -> Trigger {
        Trigger::Frames
    }

    fn wake(&mut self, _: &View<'_>) -> Decision {
        Decision { pods: 1, decide_at: None }
    }

    fn decide(&mut self, view: &View<'_>) -> Decision {
        self.seen.push((view.now, view.completions, view.request_us, view.busy_us, view.served_us));
        Decision { pods: 1, decide_at: None }
    }
}

#[test]
fn service_time_is_counted_apart_from_queueing() {
    let requests = [arrival(0, 500_000), arrival(0, 500_000)];
    let mut spy = Spy::default();
    run(&function(1), &requests, 100 * SECOND, 1, &mut spy);
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
fn nothing_happens_without_requests() {
    let outcome = run(&function(1), &[], 10 * SECOND, 1, &mut One { until: SECOND });
    assert_eq!((outcome.requests, outcome.pods.all, outcome.pods.starts), (0, 0, 0));
}

/// Waiting times of an M/M/1 queue have a known distribution: the fraction longer than t is
/// `load * exp(-(1 - load) * t / service)`.
#[test]
fn queueing_times_match_the_theory() {
    use rand_distr::{Distribution as _, Exp1};
    let random = &mut stream(1, 0, Purpose::Requests);
    let (load, service) = (0.7, 0.1);
    let mut at = 0.0;
    let mut requests = Vec::new();
    for _ in 0..400_000 {
        let (gap, long): (f64, f64) = (Exp1.sample(random), Exp1.sample(random));
        at += gap * service / load;
        requests.push(arrival((at * 1e6) as Micros, (long * service * 1e6) as u32));
    }
    let end = (at * 1e6) as Micros + SECOND;
    let outcome = run(&function(1), &requests, end, 1, &mut One { until: Micros::MAX });
    assert_eq!(outcome.waits.percentile(0.29).to_bits(), 0);
    for part in [0.5, 0.9, 0.99] {
        let expected = (load / (1.0 - part)).ln() * service / (1.0 - load) * 1e6;
        let seen = outcome.waits.percentile(part);
        assert!((seen / expected - 1.0).abs() < 0.05, "{part}: {seen} and not {expected}");
    }
    let busy = outcome.pods.busy as f64 / outcome.pods.all as f64;
    assert!((busy - load).abs() < 0.01, "{busy}");
}
