//! Bounds that change, hands and clocks that interfere, input that lies.

use super::*;

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
fn paused_leaves_the_count_alone() {
    let mut world = World::new(Policy { min: 2, max: 4, scheduled: 3, initial: 1, paused: true, ..policy() }, 9);
    for pods in [0, 1, 9] {
        world.observed = Observed { desired: pods, ready: pods };
        let decision = world.load(if pods == 1 { 500 } else { 0 }, 100.0);
        assert_eq!((decision.replicas, decision.reason, decision.wake_at), (pods, Reason::Paused, None));
    }
    world.load(1, 1.0);
    assert_eq!(world.load(0, 1.0).wake_at, None, "not even for the idle time-out");
    world.load(0, 100.0);
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
fn input_that_lies_ends_within_the_bounds() {
    let most = u64::MAX;
    let huge = Demand {
        in_flight: most,
        queued: most,
        arrivals: most,
        completions: most,
        abandoned: 0,
        request_us: most,
        busy_us: most,
        served_us: most,
    };
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
    let mut state = State::new(Duration::ZERO);
    let decision = decide(Duration::MAX, &huge, &Observed::default(), &policy(), &mut state);
    assert!((1..=100).contains(&decision.replicas), "{decision}");
}

#[test]
fn after_a_restart_the_count_is_the_floor_for_a_window() {
    let mut world = World::new(policy(), 8);
    let decision = world.load(10, 59.0);
    assert_eq!((decision.replicas, decision.reason), (8, Reason::Learning));
    assert_eq!(world.load(10, 0.75).replicas, 8);
    assert_eq!(world.load(10, 0.25).replicas, 1);
}

#[test]
fn what_is_wanted_anyway_is_not_said_to_be_learned_about() {
    let mut world = World::new(policy(), 3);
    let decision = world.load(25, 10.0);
    assert_eq!((decision.replicas, decision.reason), (3, Reason::Load));
}

#[test]
fn after_a_restart_pods_without_calls_go_when_a_window_was_seen_and_not_only_after_the_idle_timeout() {
    let mut world = World::new(Policy { idle_timeout: Duration::from_secs(200), ..policy() }, 5);
    let mut decision = world.decide();
    while let Some(due) = decision.wake_at.filter(|due| *due <= Duration::from_secs(61)) {
        world.now = due;
        decision = world.decide();
    }
    assert_eq!((decision.replicas, decision.reason), (1, Reason::KeptWarm));
}

#[test]
fn after_a_restart_habits_say_nothing_of_what_is_later_than_the_idle_timeout() {
    let after_the_timeout = |idles, timeout| {
        let mut habits = Habits::default();
        for _ in 0..9 {
            habits.record(Duration::from_secs(idles));
        }
        let timeout = Duration::from_secs(timeout);
        let policy = Policy { prewarm: Some(PRICE), idle_timeout: timeout, ..policy() };
        let mut world = World { state: State::restored(Duration::ZERO, habits, None), ..World::new(policy, 1) };
        world.decide();
        world.now += timeout;
        let decision = world.decide();
        (decision.replicas, decision.wake_at.map(|at| (at - world.now).as_secs()))
    };
    assert_eq!(after_the_timeout(601, 30), (0, None), "since when it is idle is not known");
    assert_eq!(after_the_timeout(70, 50), (1, Some(70)), "it has been idle for that long at least");
    assert_eq!(after_the_timeout(70, 30), (0, None));
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
fn a_target_that_is_none_is_one_pod_for_each_request() {
    for target in [0.0, -3.0, f64::NAN, f64::INFINITY] {
        let mut world = World::new(Policy { target, ..policy() }, 1);
        assert_eq!(world.load(5, 100.0).replicas, 5, "{target}");
    }
}

#[test]
fn an_idle_time_in_which_a_clock_jumped_is_not_learned() {
    for (jump, learned) in [(0, 1), (86_400, 0)] {
        let mut world = World::new(Policy { prewarm: Some(PRICE), ..policy() }, 1);
        world.load(50, 70.0);
        world.load(0, 10.0);
        world.now += Duration::from_secs(jump);
        world.load(0, 60.0);
        world.load(1, 1.0);
        assert_eq!(world.state.habits().map_or(0, Habits::total), learned);
    }
}
