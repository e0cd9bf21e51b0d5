use super::*;
use crate::{COLD_START_COST, IdleHistogram, Metric};

/// One revision: a clock, the counters, and pods that are ready as soon as they are wanted.
struct World {
    now: Duration,
    demand: Demand,
    observed: Observed,
    policy: Policy,
    state: State,
}

impl World {
    fn new(policy: Policy, pods: u32) -> Self {
        let observed = Observed { desired: pods, ready: pods };
        Self { now: Duration::ZERO, demand: Demand::default(), observed, policy, state: State::new(Duration::ZERO) }
    }

    fn decide(&mut self) -> Decision {
        let decision = decide(self.now, &self.demand, &self.observed, &self.policy, &mut self.state);
        self.observed = Observed { desired: decision.replicas, ready: decision.replicas };
        decision
    }

    /// Applies a concurrency of `level` for some seconds, with four decisions per second.
    fn load(&mut self, level: u64, seconds: f64) -> Decision {
        let end = self.now + Duration::from_secs_f64(seconds);
        let step = Duration::from_millis(250);
        let before = self.demand.in_flight;
        self.demand.in_flight = level;
        self.demand.arrivals += level.saturating_sub(before);
        let mut last = self.decide();
        while self.now < end {
            self.now += step;
            self.demand.request_us += level * 250_000;
            self.demand.busy_us += level * 250_000;
            last = self.decide();
        }
        last
    }

    fn short_request(&mut self) {
        self.demand.arrivals += 1;
    }
}

fn policy() -> Policy {
    Policy { target: 10.0, ..Policy::default() }
}

#[test]
fn a_steady_load_is_divided_by_the_target() {
    let mut world = World::new(policy(), 1);
    assert_eq!(world.load(25, 70.0).replicas, 3);
    assert_eq!(world.load(25, 70.0).replicas, 3);
}

#[test]
fn a_sudden_rise_is_applied_within_the_panic_window() {
    let mut world = World::new(policy(), 1);
    world.load(5, 120.0);
    assert_eq!(world.observed.desired, 1);
    let decision = world.load(100, 6.0);
    assert_eq!((decision.replicas, decision.reason), (10, Reason::Panic));
}

#[test]
fn random_variation_is_below_half_a_pod_at_a_target_of_ten() {
    let mut world = World::new(policy(), 1);
    world.load(10, 120.0);
    let decision = world.load(45, 1.0);
    assert_eq!((decision.replicas, decision.reason), (5, Reason::Panic), "more than twice the two pods");
}

#[test]
fn the_stable_window_restarts_with_a_rise() {
    let mut world = World::new(policy(), 1);
    world.load(10, 120.0);
    world.load(100, 3.0);
    let seen = world.load(50, 7.0).seen;
    assert!((seen.stable - (3.0 * 100.0 + 7.0 * 50.0) / 10.0).abs() < 0.5, "{seen:?}");
}

#[test]
fn a_tenfold_step_is_applied_within_one_and_a_half_seconds() {
    let mut world = World::new(Policy { target: 3.5, ..policy() }, 1);
    world.load(5, 120.0);
    assert_eq!(world.observed.desired, 2);
    let decision = world.load(50, 1.25);
    assert_eq!((decision.replicas, decision.reason), (15, Reason::Panic));
    for quarter in 0..1200 {
        assert_eq!(world.load(50, 0.25).replicas, 15, "the count is stable: {quarter} quarters of a second later");
    }
}

#[test]
fn pods_of_a_rollout_are_kept_until_its_requests_arrive() {
    let mut world = World::new(Policy { held: 9, ..policy() }, 1);
    let decision = world.load(0, 100.0);
    assert_eq!((decision.replicas, decision.reason), (9, Reason::Rollout));
    // The traffic weight changes, and the requests arrive half a second later.
    world.policy.held = 0;
    assert_eq!(world.load(0, 0.5).replicas, 9);
    assert_eq!(world.load(90, 70.0).replicas, 9);
    // Without requests, the pods are removed like any unused pods.
    let mut world = World::new(Policy { held: 9, ..policy() }, 1);
    world.load(0, 100.0);
    world.policy.held = 0;
    assert_eq!(world.load(0, 29.0).replicas, 9);
    assert_eq!(world.load(0, 2.0).replicas, 0);
    // `max` takes precedence.
    assert_eq!(World::new(Policy { held: 9, max: 3, ..policy() }, 1).load(0, 1.0).replicas, 3);
}

#[test]
fn pods_of_a_spike_are_kept_for_the_idle_timeout() {
    let mut world = World::new(policy(), 1);
    world.load(5, 120.0);
    world.load(100, 2.0);
    assert_eq!(world.observed.desired, 10);
    assert_eq!(world.load(5, 29.0).replicas, 10);
    assert!(world.load(5, 10.0).replicas <= 4, "{:?}", world.observed);
    assert_eq!(world.load(5, 60.0).replicas, 1);
}

#[test]
fn a_load_that_falls_is_followed_down() {
    let mut world = World::new(policy(), 1);
    world.load(100, 120.0);
    assert_eq!(world.observed.desired, 10);
    let (mut before, mut falls) = (10, 0);
    for _ in 0..130 {
        let now = world.load(10, 1.0).replicas;
        assert!(now <= before, "no increase in between");
        falls += u32::from(now < before);
        before = now;
    }
    assert_eq!(before, 1);
    assert!(falls >= 4, "in steps: {falls}");
}

#[test]
fn a_load_that_fills_the_pods_does_not_wait_for_the_stable_window() {
    let mut world = World::new(policy(), 1);
    world.load(30, 120.0);
    assert_eq!(world.observed.desired, 3);
    assert_eq!(world.load(70, 6.5).replicas, 7);
}

#[test]
fn random_concurrency_is_not_a_rise() {
    let mut world = World::new(Policy { target: 1.0, ..policy() }, 1);
    world.load(0, 10.0);
    world.load(1, 1.0);
    assert_eq!(world.load(3, 1.0).replicas, 1, "three times the pod, within random variation");
    let mut world = World::new(Policy { target: 1.0, ..policy() }, 1);
    world.load(0, 10.0);
    world.load(1, 1.0);
    assert_eq!(world.load(5, 1.0).replicas, 5);
}

#[test]
fn an_average_around_a_whole_number_does_not_flap() {
    let mut world = World::new(policy(), 1);
    let (mut changes, mut before) = (0, 0);
    for round in 0..600u64 {
        // Alternates between 1.9 and 2.1 pods every forty seconds.
        let level = if (round / 40) % 2 == 0 { 19 } else { 21 };
        let count = world.load(level, 1.0).replicas;
        changes += u32::from(round > 120 && count != before);
        before = count;
    }
    assert_eq!((before, changes), (3, 0));
    assert_eq!(world.load(19, 150.0).replicas, 2, "a lasting decrease is followed");
}

#[test]
fn a_schedule_is_a_minimum_also_when_idle() {
    let mut world = World::new(Policy { scheduled: 3, ..policy() }, 0);
    let decision = world.load(0, 1000.0);
    assert_eq!((decision.replicas, decision.reason), (3, Reason::Scheduled));
    assert_eq!(world.load(75, 10.0).replicas, 8, "the load exceeds the schedule");
    world.load(0, 100.0);
    world.policy.scheduled = 0;
    assert_eq!(world.load(0, 1.0).replicas, 0);
}

#[test]
fn a_request_every_ten_minutes_finds_a_prewarmed_pod() {
    let mut world = World::new(Policy { prewarm: Some(COLD_START_COST), ..policy() }, 0);
    let (mut warm, mut pod_seconds) = (0, 0);
    for round in 0..20 {
        if round >= 10 {
            warm += u32::from(world.observed.ready > 0);
        }
        world.load(1, 2.0);
        for _ in 0..598 {
            world.load(0, 1.0);
            pod_seconds += if round >= 10 { world.observed.ready } else { 0 };
        }
    }
    assert_eq!(warm, 10);
    assert!(pod_seconds <= 10 * 150, "the idle timeout and two minutes of each ten: {pod_seconds}");
}

#[test]
fn an_idle_function_is_decided_at_its_prewarm_window() {
    let mut histogram = IdleHistogram::default();
    for _ in 0..9 {
        histogram.record(Duration::from_secs(601));
    }
    let start = Duration::from_secs(7);
    let decide_after = |idle, prewarm: bool| {
        let mut state = State::restored(start, histogram.clone(), idle);
        let policy = Policy { prewarm: prewarm.then_some(COLD_START_COST), ..policy() };
        let decision = decide(start, &Demand::default(), &Observed::default(), &policy, &mut state);
        (decision.replicas, decision.wake_at.map(|at| (at - start).as_secs()))
    };
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(decide_after(seconds(100), true), (0, Some(490)), "ten seconds before the tenth minute");
    assert_eq!(decide_after(seconds(590), true), (1, Some(70)));
    assert_eq!(decide_after(seconds(659), true), (1, Some(1)));
    assert_eq!(decide_after(seconds(660), true), (0, None));
    assert_eq!(decide_after(seconds(600), false), (0, None));
    assert_eq!(decide_after(None, true), (0, Some(30)), "unknown idle time: the idle timeout applies first");
}

#[test]
fn no_review_while_only_the_idle_timeout_is_pending() {
    let asked_in = |level, seconds, policy: Policy| {
        let mut world = World::new(policy, 1);
        world.load(level, seconds);
        world.demand.in_flight = 0;
        let wake = world.load(0, 2.0).wake_at.map(|at| (at - world.now).as_secs_f64());
        (world.observed.desired, wake)
    };
    assert_eq!(asked_in(1, 70.0, policy()), (1, Some(28.0)));
    assert_eq!(asked_in(25, 70.0, policy()), (3, Some(1.0)), "the average falls");
    let delay = Policy { scale_down_delay: Duration::from_secs(20), stable_window: Duration::from_secs(6), ..policy() };
    let (pods, wake) = asked_in(25, 70.0, delay);
    assert!(pods > 1 && wake == Some(1.0), "the delay ends: {pods} {wake:?}");
}

#[test]
fn reports_the_inputs_of_the_decision() {
    let mut world = World::new(policy(), 1);
    world.load(25, 120.0);
    let seen = world.load(25, 1.0).seen;
    assert!((seen.swift - 25.0).abs() < 1e-6 && seen.concurrency == 25, "{seen:?}");
    let seen = world.load(0, 3.0).seen;
    assert_eq!(seen.concurrency, 0);
    assert!((seen.stable - 23.75).abs() < 0.3, "{seen:?}");
    assert!((seen.panic - 12.5).abs() < 0.7 && seen.swift.abs() < 1e-9, "{seen:?}");
    assert_eq!((seen.idle, seen.target.round() as u32), (Duration::from_secs(3), 10));
}

#[test]
fn reviews_are_more_frequent_while_demand_exceeds_the_pods() {
    let after = |in_flight, max, idle| {
        let policy = Policy { max, idle_timeout: Duration::from_millis(idle), ..policy() };
        let mut world = World::new(policy, 1);
        world.load(10, 70.0);
        world.demand.in_flight = in_flight;
        world.decide().wake_at.map(|at| (at - world.now).as_millis())
    };
    assert_eq!(after(10, 100, 30_000), Some(1000), "as many as the pod is for");
    assert_eq!(after(11, 100, 30_000), Some(250));
    assert_eq!(after(11, 1, 30_000), Some(1000), "there will not be more");
    assert_eq!(after(10, 100, 100), Some(1000), "the idle timeout is not running");
    assert_eq!(after(0, 100, 30_000), Some(30_000));
}

#[test]
fn a_load_of_exactly_max_is_not_reported_as_limited() {
    let mut world = World::new(Policy { max: 3, ..policy() }, 1);
    let decision = world.load(30, 100.0);
    assert_eq!((decision.replicas, decision.reason), (3, Reason::Load));
    assert_eq!(world.load(50, 100.0).reason, Reason::Max);
}

#[test]
fn the_last_pod_is_removed_after_the_idle_timeout_and_not_before() {
    let mut world = World::new(policy(), 1);
    world.load(1, 5.0);
    let decision = world.load(0, 29.5);
    assert_eq!((decision.replicas, decision.reason), (1, Reason::KeptWarm));
    assert_eq!(decision.wake_at, Some(Duration::from_secs(35)));
    let decision = world.load(0, 0.5);
    assert_eq!((decision.replicas, decision.reason, decision.wake_at), (0, Reason::Idle, None));
}

#[test]
fn a_request_between_two_decisions_counts() {
    let mut world = World::new(policy(), 1);
    world.load(0, 29.0);
    world.short_request();
    world.load(0, 29.0);
    assert_eq!(world.observed.desired, 1);
    assert_eq!(world.load(0, 1.0).replicas, 0);
}

#[test]
fn a_long_request_keeps_its_pod() {
    let mut world = World::new(Policy { idle_timeout: Duration::from_secs(2), ..policy() }, 1);
    assert_eq!(world.load(1, 600.0).replicas, 1);
}

#[test]
fn a_queued_request_is_demand() {
    let mut world = World::new(policy(), 0);
    world.demand.queued = 1;
    world.demand.arrivals = 1;
    assert_eq!(world.decide().replicas, 1);
}

#[test]
fn zero_stays_zero_without_a_request() {
    let mut world = World::new(policy(), 0);
    let decision = world.decide();
    assert_eq!(decision.replicas, 0);
    assert_eq!(world.load(0, 100.0).replicas, 0);
}

#[test]
fn requests_per_second() {
    let mut world = World::new(Policy { metric: Metric::Rps, ..policy() }, 1);
    for _ in 0..70 {
        world.demand.arrivals += 35;
        world.load(0, 1.0);
    }
    assert_eq!(world.observed.desired, 4);
}

#[test]
fn a_lower_count_waits_for_the_scale_down_delay() {
    let mut world = World::new(Policy { scale_down_delay: Duration::from_secs(30), ..policy() }, 1);
    world.load(10, 70.0);
    world.load(18, 70.0);
    assert_eq!(world.observed.desired, 2);
    world.load(5, 60.0);
    assert_eq!(world.observed.desired, 2);
    assert_eq!(world.load(5, 15.0).replicas, 1);
}

mod edges;
mod hostile;
mod station;
mod work;

/// Users report that a function whose start takes longer than a client waits is never served: its pod is removed after each
/// attempt.
#[test]
fn a_starting_pod_is_not_idle() {
    let mut world = World::new(policy(), 1);
    world.policy.starting = true;
    let mut decide_at = |second: u64, ready: u32, starting: bool| {
        world.now = Duration::from_secs(second);
        world.observed = Observed { desired: 1, ready };
        world.policy.starting = starting;
        let decision = decide(world.now, &world.demand, &world.observed, &world.policy, &mut world.state);
        (decision.replicas, decision.reason)
    };
    for second in (0..300).step_by(10) {
        assert_eq!(decide_at(second, 0, true), (1, Reason::Starting), "at {second}");
    }
    // The whole idle timeout follows, also if the pod crashes within it.
    assert_eq!(decide_at(309, 1, false), (1, Reason::KeptWarm));
    assert_eq!(decide_at(330, 0, true), (1, Reason::KeptWarm));
    assert_eq!(decide_at(339, 1, false), (0, Reason::Idle));
}

#[test]
fn a_pod_that_does_not_become_ready_is_removed_in_the_end() {
    let mut world = World::new(policy(), 1);
    world.policy.starting = true;
    world.observed.ready = 0;
    assert_eq!(decide(Duration::ZERO, &world.demand, &world.observed, &world.policy, &mut world.state).replicas, 1);
    world.policy.starting = false;
    let after = |world: &mut World, seconds| {
        let now = Duration::from_secs(seconds);
        decide(now, &world.demand, &world.observed, &world.policy, &mut world.state)
    };
    assert_eq!(after(&mut world, 600).replicas, 1);
    assert_eq!(after(&mut world, 630).reason, Reason::Idle);
}
