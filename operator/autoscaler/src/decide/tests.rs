use super::*;
use crate::{Habits, PRICE};

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
fn a_step_of_ten_times_is_answered_within_a_second_and_a_half() {
    let mut world = World::new(Policy { target: 3.5, ..policy() }, 1);
    world.load(5, 120.0);
    assert_eq!(world.observed.desired, 2);
    let decision = world.load(50, 1.25);
    assert_eq!((decision.replicas, decision.reason), (15, Reason::Panic));
    for second in 0..300 {
        assert_eq!(world.load(50, 1.0).replicas, 15, "and it stays there: {second} seconds later");
    }
}

#[test]
fn what_a_spike_wanted_is_kept_for_as_long_as_a_pod_may_idle() {
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
        assert!(now <= before, "it does not go up in between");
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
fn a_queue_that_stays_adds_pods_each_second() {
    let after = |seconds: u64, queued| {
        let mut world = World::new(Policy { target: 1.0, ..policy() }, 1);
        world.load(10, 120.0);
        assert_eq!(world.observed.desired, 10);
        (world.demand.queued, world.demand.in_flight) = (queued, 16 - queued);
        // From the first decision that sees it.
        world.decide();
        for _ in 0..4 * seconds {
            world.now += HURRY;
            world.demand.request_us += 16 * 250_000;
            world.decide();
        }
        world.observed.desired
    };
    assert_eq!([1, 2, 3, 9].map(|seconds| after(seconds, 6)), [12, 13, 14, 16]);
    assert_eq!(after(2, 0), 11, "without a queue there is time");
}

#[test]
fn a_large_count_is_raised_by_an_eighth() {
    let mut world = World::new(Policy { target: 1.0, ..policy() }, 1);
    world.load(40, 120.0);
    (world.demand.queued, world.demand.in_flight) = (15, 40);
    world.decide();
    for _ in 0..4 {
        world.now += HURRY;
        world.demand.request_us += 55 * 250_000;
        world.decide();
    }
    assert_eq!(world.observed.desired, 45 + 1, "an eighth of the 41 that the average wants by then");
}

#[test]
fn two_at_once_by_chance_are_no_rise() {
    let mut world = World::new(Policy { target: 1.0, ..policy() }, 1);
    world.load(0, 10.0);
    world.load(1, 1.0);
    assert_eq!(world.load(3, 1.0).replicas, 1, "three times the pod, but by chance");
    let mut world = World::new(Policy { target: 1.0, ..policy() }, 1);
    world.load(0, 10.0);
    world.load(1, 1.0);
    assert_eq!(world.load(5, 1.0).replicas, 5);
}

#[test]
fn a_queue_of_a_moment_is_no_rise() {
    let mut world = World::new(Policy { target: 1.0, ..policy() }, 1);
    world.load(10, 120.0);
    for step in 0..40u64 {
        world.demand.queued = 4 * (step % 2);
        world.demand.in_flight = 10;
        world.now += HURRY;
        world.demand.request_us += (10 + 4 * (step % 2)) * 250_000;
        world.decide();
    }
    assert!(world.observed.desired < 14, "{:?}", world.observed);
}

#[test]
fn the_first_wake_asks_for_all_that_wait() {
    for (queued, target, max, expected) in [(1, 10.0, 100, 1), (25, 10.0, 100, 3), (25, 10.0, 2, 2), (40, 1.0, 100, 40)]
    {
        let mut world = World::new(Policy { target, max, ..policy() }, 0);
        world.decide();
        world.now += Duration::from_secs(1000);
        (world.demand.queued, world.demand.arrivals) = (queued, queued);
        let decision = world.decide();
        assert_eq!(decision.replicas, expected);
        assert_eq!(decision.reason, if max == 2 { Reason::Max } else { Reason::Waiting });
    }
}

#[test]
fn more_that_wait_for_the_first_pod_ask_for_more() {
    let mut world = World::new(Policy { target: 1.0, ..policy() }, 0);
    for queued in 1..=20 {
        (world.demand.queued, world.demand.arrivals) = (queued, queued);
        world.now += HURRY;
        assert_eq!(u64::from(world.decide().replicas), queued);
        world.observed.ready = 0;
    }
    world.demand.queued = 2;
    world.now += HURRY;
    assert_eq!(world.decide().replicas, 20, "those who gave up are not the end of it");
}

#[test]
fn pods_that_another_woke_are_kept_until_they_were_of_use() {
    let mut world = World::new(policy(), 0);
    world.load(0, 100.0);
    world.observed = Observed { desired: 5, ready: 0 };
    let decision = world.decide();
    assert_eq!((decision.replicas, decision.reason), (5, Reason::Panic));
    assert_eq!(world.load(0, 29.0).replicas, 5);
    assert_eq!(world.load(0, 1.25).replicas, 0);
}

#[test]
fn a_wake_right_after_a_written_zero_is_one() {
    for wrote in [true, false] {
        let mut world = World::new(policy(), 1);
        world.load(0, 30.0);
        assert_eq!(world.observed.desired, 0);
        if wrote {
            world.state.wrote(0);
        }
        // Zero was never observed.
        world.observed = Observed { desired: 1, ready: 0 };
        let decision = world.decide();
        assert_eq!(decision.replicas, u32::from(wrote), "{decision}");
    }
}

#[test]
fn a_count_that_somebody_raised_falls_at_once() {
    let mut world = World::new(policy(), 1);
    world.load(15, 100.0);
    world.observed = Observed { desired: 50, ready: 50 };
    assert_eq!(world.decide().replicas, 2);
}

#[test]
fn an_average_around_a_whole_number_makes_no_pod_come_and_go() {
    let mut world = World::new(policy(), 1);
    let (mut changes, mut before) = (0, 0);
    for round in 0..600u64 {
        // Between 1.9 and 2.1 pods for forty seconds each.
        let level = if (round / 40) % 2 == 0 { 19 } else { 21 };
        let count = world.load(level, 1.0).replicas;
        changes += u32::from(round > 120 && count != before);
        before = count;
    }
    assert_eq!((before, changes), (3, 0));
    assert_eq!(world.load(19, 150.0).replicas, 2, "but what stays below goes down");
}

#[test]
fn a_schedule_is_a_floor_and_wins_over_idle() {
    let mut world = World::new(Policy { scheduled: 3, ..policy() }, 0);
    let decision = world.load(0, 1000.0);
    assert_eq!((decision.replicas, decision.reason), (3, Reason::Scheduled));
    assert_eq!(world.load(75, 10.0).replicas, 8, "load wins over the schedule");
    world.load(0, 100.0);
    world.policy.scheduled = 0;
    assert_eq!(world.load(0, 1.0).replicas, 0);
}

#[test]
fn paused_leaves_the_count_alone() {
    let mut world = World::new(Policy { min: 2, max: 4, scheduled: 3, initial: 1, paused: true, ..policy() }, 9);
    for pods in [0, 1, 9] {
        world.observed = Observed { desired: pods, ready: pods };
        let decision = world.load(if pods == 1 { 500 } else { 0 }, 100.0);
        assert_eq!((decision.replicas, decision.reason, decision.wake_at), (pods, Reason::Paused, None));
    }
    world.policy.paused = false;
    assert_eq!(world.load(0, 1.0).replicas, 3, "nobody has called for its idle time-out");
}

#[test]
fn a_clock_that_goes_back_does_no_harm() {
    let mut world = World::new(policy(), 1);
    world.now = Duration::from_secs(100_000);
    world.load(25, 120.0);
    assert_eq!(world.observed.desired, 3);
    world.now = Duration::ZERO;
    assert_eq!(world.decide().replicas, 3);
    assert_eq!(world.load(25, 100.0).replicas, 3);
    assert_eq!(world.load(0, 29.5).replicas, 3.min(world.observed.desired));
    assert!(world.observed.desired >= 1, "the idle time-out is measured from the last request");
    let decision = world.load(0, 0.75);
    assert_eq!((decision.replicas, decision.reason), (0, Reason::Idle));
}

#[test]
fn a_clock_that_jumps_a_day_takes_no_pod_from_a_load() {
    let mut world = World::new(policy(), 1);
    world.load(75, 120.0);
    assert_eq!(world.observed.desired, 8);
    world.now += Duration::from_secs(86_400);
    let decision = world.decide();
    assert_eq!(decision.replicas, 8);
    for _ in 0..100 {
        assert_eq!(world.load(75, 1.0).replicas, 8);
    }
}

#[test]
fn a_clock_that_jumps_a_day_gives_pods_that_fall_idle_another_time_out() {
    let mut world = World::new(policy(), 1);
    world.load(50, 70.0);
    world.load(0, 10.0);
    world.now += Duration::from_secs(86_400);
    assert_eq!(world.decide().replicas, 5, "nobody has watched them fall");
    assert_eq!(world.load(0, 29.5).replicas, 5);
    assert_eq!(world.load(0, 0.75).replicas, 0);
}

#[test]
fn an_idle_time_out_that_is_found_late_is_over() {
    let mut world = World::new(policy(), 1);
    world.load(1, 70.0);
    let decision = world.load(0, 10.0);
    world.now = decision.wake_at.unwrap() + Duration::from_secs(3600);
    assert_eq!(world.decide().replicas, 0, "the counters say that nobody called");
}

#[test]
fn an_idle_function_is_left_alone_and_remembers_little() {
    let mut world = World::new(policy(), 1);
    world.load(50, 100.0);
    let decision = world.load(0, 31.0);
    assert_eq!((decision.replicas, decision.wake_at), (0, None));
    assert_eq!(world.state.peaks.most() + world.state.lasting.most() + world.state.delayed.most(), 0);
    // Being called again after days is no jump.
    world.now += Duration::from_secs(300_000);
    world.demand.queued = 1;
    world.call();
    let decision = world.decide();
    assert_eq!((decision.replicas, decision.reason), (1, Reason::Waiting));
    assert_eq!(world.load(1, 10.0).replicas, 1, "the days before count as nothing");
}

#[test]
fn a_call_every_ten_minutes_finds_a_pod_once_that_is_known() {
    let mut world = World::new(Policy { prewarm: Some(PRICE), ..policy() }, 0);
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
    assert!(pod_seconds <= 10 * 150, "the time-out and two minutes of each ten: {pod_seconds}");
}

#[test]
fn an_idle_function_with_habits_is_asked_when_they_say_so() {
    let mut habits = Habits::default();
    for _ in 0..9 {
        habits.record(Duration::from_secs(601));
    }
    let start = Duration::from_secs(7);
    let decide_after = |idle, prewarm: bool| {
        let mut state = State::restored(start, habits.clone(), idle);
        let policy = Policy { prewarm: prewarm.then_some(PRICE), ..policy() };
        let decision = decide(start, &Demand::default(), &Observed::default(), &policy, &mut state);
        (decision.replicas, decision.wake_at.map(|at| (at - start).as_secs()))
    };
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(decide_after(seconds(100), true), (0, Some(490)), "ten seconds before the tenth minute");
    assert_eq!(decide_after(seconds(590), true), (1, Some(70)));
    assert_eq!(decide_after(seconds(659), true), (1, Some(1)));
    assert_eq!(decide_after(seconds(660), true), (0, None));
    assert_eq!(decide_after(seconds(600), false), (0, None));
    assert_eq!(decide_after(None, true), (0, Some(30)), "nothing is known: its own time-out first");
}

#[test]
fn input_that_lies_ends_within_the_bounds() {
    let huge = Demand { in_flight: u64::MAX, queued: u64::MAX, arrivals: u64::MAX, request_us: u64::MAX };
    for target in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 0.0, 1e-300, 1e300] {
        for metric in [Metric::Concurrency, Metric::Rps] {
            for (min, max) in [(0, 7), (3, 7), (9, 7)] {
                let policy = Policy { target, metric, min, max, idle_timeout: Duration::MAX, ..policy() };
                let mut state = State::new(Duration::ZERO);
                for (step, demand) in [Demand::default(), huge, Demand::default(), huge].into_iter().enumerate() {
                    let now = Duration::from_secs(step as u64 * 40 % 100);
                    let observed = Observed { desired: u32::MAX, ready: u32::MAX };
                    let decision = decide(now, &demand, &observed, &policy, &mut state);
                    assert!((min.min(max)..=max).contains(&decision.replicas), "{decision} for {policy:?}");
                    assert!(demand.concurrency() == 0 || decision.replicas > 0);
                }
            }
        }
    }
    let decision = decide(Duration::MAX, &huge, &Observed::default(), &policy(), &mut State::new(Duration::ZERO));
    assert_eq!(decision.replicas, 100);
}

#[test]
fn the_numbers_are_what_it_was_decided_from() {
    let mut world = World::new(policy(), 1);
    world.load(25, 120.0);
    let seen = world.load(0, 3.0).seen;
    assert_eq!(seen.concurrency, 0);
    assert!((seen.stable - 23.75).abs() < 0.3, "{seen:?}");
    assert!((seen.panic - 12.5).abs() < 0.7 && seen.swift.abs() < 1e-9, "{seen:?}");
    assert_eq!((seen.idle, seen.target.round() as u32), (Duration::from_secs(3), 10));
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
fn min_raised_above_the_count_in_the_middle_of_a_fall_wins() {
    let mut world = World::new(policy(), 1);
    world.load(100, 120.0);
    let falling = world.load(10, 30.0).replicas;
    assert!(falling < 10 && falling > 1, "{falling}");
    world.policy.min = falling + 3;
    let decision = world.decide();
    assert_eq!((decision.replicas, decision.reason), (falling + 3, Reason::Min));
    assert_eq!(world.load(10, 200.0).replicas, falling + 3);
    world.policy.min = 0;
    assert_eq!(world.decide().replicas, 1);
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
    assert_eq!(world.load(5, 15.0).replicas, 1);
}
