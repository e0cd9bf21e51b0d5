//! Changing bounds, other writers of the scale, clock jumps, and inconsistent input.

use super::*;

#[test]
fn pods_of_a_wake_are_kept_for_the_idle_timeout() {
    let mut world = World::new(policy(), 0);
    world.load(0, 100.0);
    world.observed = Observed { desired: 5, ready: 0 };
    let decision = world.decide();
    assert_eq!((decision.replicas, decision.reason), (5, Reason::Panic));
    assert_eq!(world.load(0, 29.0).replicas, 5);
    assert_eq!(world.load(0, 1.25).replicas, 0);
}

#[test]
fn a_wake_right_after_a_written_zero_is_detected() {
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
fn a_count_raised_by_another_client_is_reverted_at_once() {
    let mut world = World::new(policy(), 1);
    world.load(15, 100.0);
    world.observed = Observed { desired: 50, ready: 50 };
    assert_eq!(world.decide().replicas, 2);
}

#[test]
fn paused_keeps_the_count() {
    let mut world = World::new(Policy { min: 2, max: 4, scheduled: 3, initial: 1, paused: true, ..policy() }, 9);
    for pods in [0, 1, 9] {
        world.observed = Observed { desired: pods, ready: pods };
        let decision = world.load(if pods == 1 { 500 } else { 0 }, 100.0);
        assert_eq!((decision.replicas, decision.reason, decision.wake_at), (pods, Reason::Paused, None));
    }
    world.load(1, 1.0);
    assert_eq!(world.load(0, 1.0).wake_at, None, "the idle timeout does not run while paused");
    world.load(0, 100.0);
    world.policy.paused = false;
    assert_eq!(world.load(0, 1.0).replicas, 3, "no request since its idle timeout");
}

#[test]
fn a_clock_that_goes_backwards_is_tolerated() {
    let mut world = World::new(policy(), 1);
    world.now = Duration::from_secs(100_000);
    world.load(25, 120.0);
    assert_eq!(world.observed.desired, 3);
    world.now = Duration::ZERO;
    assert_eq!(world.decide().replicas, 3);
    assert_eq!(world.load(25, 100.0).replicas, 3);
    assert_eq!(world.load(0, 29.5).replicas, 3.min(world.observed.desired));
    assert!(world.observed.desired >= 1, "the idle timeout is measured from the last request");
    let decision = world.load(0, 0.75);
    assert_eq!((decision.replicas, decision.reason), (0, Reason::Idle));
}

#[test]
fn a_clock_jump_removes_no_pod_under_load() {
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
fn a_clock_jump_restarts_the_idle_timeout() {
    let mut world = World::new(policy(), 1);
    world.load(50, 70.0);
    world.load(0, 10.0);
    world.now += Duration::from_secs(86_400);
    assert_eq!(world.decide().replicas, 5, "the fall was not observed");
    assert_eq!(world.load(0, 29.5).replicas, 5);
    assert_eq!(world.load(0, 0.75).replicas, 0);
}

#[test]
fn a_late_decision_after_the_idle_timeout_scales_to_zero() {
    let mut world = World::new(policy(), 1);
    world.load(1, 70.0);
    let decision = world.load(0, 10.0);
    world.now = decision.wake_at.unwrap() + Duration::from_secs(3600);
    assert_eq!(world.decide().replicas, 0, "the counters show no request");
}

#[test]
fn an_idle_function_needs_no_review_and_little_memory() {
    let mut world = World::new(policy(), 1);
    world.load(50, 100.0);
    let decision = world.load(0, 31.0);
    assert_eq!((decision.replicas, decision.wake_at), (0, None));
    assert_eq!(world.state.peaks.max() + world.state.stable_max.max() + world.state.delayed_max.max(), 0);
    // A request after days of idle time is no jump.
    world.now += Duration::from_secs(300_000);
    world.demand.queued = 1;
    world.short_request();
    let decision = world.decide();
    assert_eq!((decision.replicas, decision.reason), (1, Reason::Waiting));
    assert_eq!(world.load(1, 10.0).replicas, 1, "the days before count as nothing");
}

#[test]
fn inconsistent_input_stays_within_the_bounds() {
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
fn after_a_restart_the_count_is_the_minimum_for_a_window() {
    let mut world = World::new(policy(), 8);
    let decision = world.load(10, 59.0);
    assert_eq!((decision.replicas, decision.reason), (8, Reason::Learning));
    assert_eq!(world.load(10, 0.75).replicas, 8);
    assert_eq!(world.load(10, 0.25).replicas, 1);
}

#[test]
fn learning_is_not_reported_for_a_count_that_is_wanted_anyway() {
    let mut world = World::new(policy(), 3);
    let decision = world.load(25, 10.0);
    assert_eq!((decision.replicas, decision.reason), (3, Reason::Load));
}

#[test]
fn after_a_restart_unused_pods_are_removed_after_a_window_before_the_idle_timeout() {
    let mut world = World::new(Policy { idle_timeout: Duration::from_secs(200), ..policy() }, 5);
    let mut decision = world.decide();
    while let Some(due) = decision.wake_at.filter(|due| *due <= Duration::from_secs(61)) {
        world.now = due;
        decision = world.decide();
    }
    assert_eq!((decision.replicas, decision.reason), (1, Reason::KeptWarm));
}

#[test]
fn after_a_restart_a_window_beyond_the_idle_timeout_is_ignored() {
    let after_the_timeout = |idles, timeout| {
        let mut histogram = IdleHistogram::default();
        for _ in 0..9 {
            histogram.record(Duration::from_secs(idles));
        }
        let timeout = Duration::from_secs(timeout);
        let policy = Policy { prewarm: Some(COLD_START_COST), idle_timeout: timeout, ..policy() };
        let mut world = World { state: State::restored(Duration::ZERO, histogram, None), ..World::new(policy, 1) };
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
fn after_a_restart_scale_to_zero_takes_a_full_idle_timeout() {
    let mut world = World::new(policy(), 1);
    assert_eq!(world.load(0, 29.0).replicas, 1);
    assert_eq!(world.load(0, 1.0).replicas, 0);
}

#[test]
fn min_max_and_initial_bound_the_count() {
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
fn max_lowered_below_the_count_applies() {
    let mut world = World::new(policy(), 8);
    world.policy.max = 3;
    assert_eq!(world.load(80, 1.0).replicas, 3);
}

#[test]
fn min_raised_above_the_count_during_a_scale_down_applies() {
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
fn an_invalid_target_is_one_pod_per_request() {
    for target in [0.0, -3.0, f64::NAN, f64::INFINITY] {
        let mut world = World::new(Policy { target, ..policy() }, 1);
        assert_eq!(world.load(5, 100.0).replicas, 5, "{target}");
    }
}

#[test]
fn an_idle_time_with_a_clock_jump_is_not_recorded() {
    for (jump, learned) in [(0, 1), (86_400, 0)] {
        let mut world = World::new(Policy { prewarm: Some(COLD_START_COST), ..policy() }, 1);
        world.load(50, 70.0);
        world.load(0, 10.0);
        world.now += Duration::from_secs(jump);
        world.load(0, 60.0);
        world.load(1, 1.0);
        assert_eq!(world.state.idle_histogram().map_or(0, IdleHistogram::total), learned);
    }
}
