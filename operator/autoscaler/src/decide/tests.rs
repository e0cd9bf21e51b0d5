use proptest::prelude::*;

use super::*;

/// A world of one revision: a clock, the counters, and pods that are ready as soon as they are wanted.
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

    /// `level` requests at once for so long, decided four times a second.
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
            last = self.decide();
        }
        last
    }

    fn call(&mut self) {
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
fn a_sudden_rise_is_answered_within_the_panic_window() {
    let mut world = World::new(policy(), 1);
    world.load(5, 120.0);
    assert_eq!(world.observed.desired, 1);
    let decision = world.load(100, 6.0);
    assert_eq!((decision.replicas, decision.reason), (10, Reason::Panic));
}

#[test]
fn a_rise_only_adds_pods_until_it_has_been_over_for_a_window() {
    let mut world = World::new(policy(), 1);
    world.load(100, 7.0);
    assert_eq!(world.observed.desired, 10);
    assert_eq!(world.load(10, 50.0).replicas, 10);
    assert_eq!(world.load(10, 80.0).replicas, 1);
}

#[test]
fn the_last_pod_goes_after_the_idle_timeout_and_not_before() {
    let mut world = World::new(policy(), 1);
    world.load(1, 5.0);
    let decision = world.load(0, 29.5);
    assert_eq!((decision.replicas, decision.reason), (1, Reason::KeptWarm));
    assert_eq!(decision.wake_at, Some(Duration::from_secs(35)));
    let decision = world.load(0, 0.5);
    assert_eq!((decision.replicas, decision.reason, decision.wake_at), (0, Reason::Idle, None));
}

#[test]
fn a_call_that_came_and_went_between_two_decisions_counts() {
    let mut world = World::new(policy(), 1);
    world.load(0, 29.0);
    world.call();
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
fn zero_stays_zero_without_a_call() {
    let mut world = World::new(policy(), 0);
    let decision = world.decide();
    assert_eq!(decision.replicas, 0);
    assert_eq!(world.load(0, 100.0).replicas, 0);
}

#[test]
fn after_a_restart_the_count_is_the_floor_for_a_window() {
    let mut world = World::new(policy(), 8);
    let decision = world.load(10, 59.0);
    assert_eq!((decision.replicas, decision.reason), (8, Reason::Learning));
    assert_eq!(world.load(10, 2.0).replicas, 1);
}

#[test]
fn after_a_restart_zero_takes_a_whole_idle_timeout() {
    let mut world = World::new(policy(), 1);
    assert_eq!(world.load(0, 29.0).replicas, 1);
    assert_eq!(world.load(0, 1.0).replicas, 0);
}

#[test]
fn min_max_and_initial_bound_it() {
    let mut world = World::new(Policy { min: 2, max: 4, ..policy() }, 2);
    assert_eq!(world.load(0, 100.0).replicas, 2);
    let decision = world.load(1000, 10.0);
    assert_eq!((decision.replicas, decision.reason), (4, Reason::Max));
    let mut world = World::new(Policy { initial: 3, ..policy() }, 0);
    let decision = world.load(0, 100.0);
    assert_eq!((decision.replicas, decision.reason), (3, Reason::Initial));
    world.policy.initial = 0;
    assert_eq!(world.decide().replicas, 0);
}

#[test]
fn max_lowered_below_the_count_wins() {
    let mut world = World::new(policy(), 8);
    world.policy.max = 3;
    assert_eq!(world.load(80, 1.0).replicas, 3);
}

#[test]
fn requests_a_second() {
    let mut world = World::new(Policy { metric: Metric::Rps, ..policy() }, 1);
    for _ in 0..70 {
        world.demand.arrivals += 35;
        world.load(0, 1.0);
    }
    assert_eq!(world.observed.desired, 4);
}

#[test]
fn a_lower_count_waits_for_the_delay() {
    let mut world = World::new(Policy { scale_down_delay: Duration::from_secs(30), ..policy() }, 1);
    world.load(10, 70.0);
    world.load(18, 70.0);
    assert_eq!(world.observed.desired, 2);
    world.load(5, 60.0);
    assert_eq!(world.observed.desired, 2);
    assert_eq!(world.load(5, 10.0).replicas, 1);
}

proptest! {
    #[test]
    fn bounds_hold_and_demand_is_never_left_without_a_pod(
        steps in prop::collection::vec((0u64..200, 0u64..50, 0u64..20_000, 0u32..30), 1..60),
        min in 0u32..3, max in 3u32..20, target in 1.0f64..50.0,
    ) {
        let policy = Policy { min, max, target, ..Policy::default() };
        let mut state = State::new(Duration::ZERO);
        let (mut now, mut demand) = (Duration::ZERO, Demand::default());
        for (in_flight, queued, millis, ready) in steps {
            now += Duration::from_millis(millis);
            demand.request_us += demand.concurrency() * millis * 1000;
            demand.arrivals += in_flight;
            (demand.in_flight, demand.queued) = (in_flight, queued);
            let observed = Observed { desired: ready, ready };
            let decision = decide(now, &demand, &observed, &policy, &mut state);
            prop_assert!(decision.replicas >= min && decision.replicas <= max);
            if demand.concurrency() > 0 {
                prop_assert!(decision.replicas >= 1);
            }
            if ready > 0 && now < state.last_active() + policy.idle_timeout {
                prop_assert!(decision.replicas >= 1);
            }
            let mut again = state.clone();
            let observed = Observed { desired: decision.replicas, ready };
            let repeated = decide(now, &demand, &observed, &policy, &mut again);
            prop_assert_eq!(repeated.replicas, decision.replicas);
        }
    }

    #[test]
    fn any_world_without_calls_comes_to_min(min in 0u32..3, pods in 0u32..20, target in 1.0f64..50.0, level in 0u64..500) {
        let mut world = World::new(Policy { min, target, ..Policy::default() }, pods);
        world.load(level, 20.0);
        world.load(0, 31.0);
        prop_assert_eq!(world.observed.desired, min);
    }
}
