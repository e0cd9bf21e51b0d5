//! Misleading environments: measurements must be correct, and no limit may outlive its cause.

use super::{station::Station, *};
use crate::Metric;

#[test]
fn clients_that_join_one_by_one_get_pods() {
    let mut station = Station::new(1, 1000, Policy::default());
    for _ in 0..100 {
        station.join(1, 200);
        station.run(1, 0, 0);
    }
    station.run(60, 0, 0);
    assert!(station.least(150) >= 90, "{}", station.timeline());
    assert!(!station.reasons.contains(&Reason::Bottleneck), "each pod serves as much as those before it");
}

#[test]
fn a_removed_bottleneck_does_not_limit_the_count() {
    let mut station = Station::new(5, 300, Policy::default());
    station.run(60, 50, 300);
    station.shared = Some(4);
    station.run(300, 100, 300);
    assert_eq!(station.reasons.last(), Some(&Reason::Bottleneck), "{}", station.timeline());
    station.shared = None;
    station.run(60, 200, 300);
    // 12,000 requests are queued, and more pods would serve them.
    assert!(station.reached(360, 30).is_some_and(|ms| ms <= 10_000), "{}", station.timeline());
    assert_eq!(station.last().2, 0, "{}", station.timeline());
}

#[test]
fn with_insufficient_capacity_pods_are_tried_one_at_a_time() {
    let mut station = Station::new(5, 300, Policy::default());
    station.room = 2;
    for step in 1..10 {
        station.run(60, step * 10, 300);
    }
    let before = station.last().0;
    station.run(300, 800, 300);
    let tried = station.last().0 - before;
    assert!((5..=31).contains(&tried), "one in ten seconds: {tried}: {}", station.timeline());
}

#[test]
fn one_pod_that_never_starts_does_not_limit_the_count() {
    let mut station = Station::new(5, 2000, Policy::default());
    station.run(60, 20, 200);
    station.stuck = 1;
    for rate in [40, 120, 400] {
        station.run(100, rate, 200);
    }
    let start = station.learned().start.unwrap_or_default();
    assert!(start < Duration::from_secs(3), "{start:?}: {}", station.timeline());
    assert!(station.reached(260, 22).is_some_and(|ms| ms <= 2000), "{}", station.timeline());
    assert_eq!(station.last().2, 0, "{}", station.timeline());
}

#[test]
fn crashed_and_recovered_pods_do_not_change_the_start_time() {
    let mut station = Station::new(5, 2000, Policy::default());
    station.run(60, 50, 300);
    station.crash(2, 300_000);
    station.run(400, 50, 300);
    let start = station.learned().start.unwrap_or_default();
    assert!(start < Duration::from_secs(3), "{start:?}: {}", station.timeline());
}

#[test]
fn the_count_after_a_backlog_does_not_fall_below_the_load() {
    // The load doubles, which is below the threshold of a rise, and requests take a hundred times as long, which the mean
    // follows slowly.
    for (limit, rates, services, needed) in
        [(1, (20, 40), (200, 200), 8), (10, (100, 100), (10, 1000), 15), (10, (20, 20), (10, 10_000), 29)]
    {
        let mut station = Station::new(limit, 1000, Policy::default());
        station.run(300, rates.0, services.0);
        station.run(200, rates.1, services.1);
        assert!(station.least(330) >= needed, "{needed} needed: {}", station.timeline());
    }
}

#[test]
fn a_function_that_became_slow_while_idle_is_detected_like_a_new_one() {
    for (limit, needed) in [(10, 15), (1, 100)] {
        let mut station = Station::new(limit, 1000, Policy::default());
        station.run(300, 20, 10);
        station.run(100, 0, 0);
        station.waits.clear();
        station.run(60, 20, 5000);
        let slowest = station.waits.iter().max().copied().unwrap_or(u64::MAX);
        assert!(slowest <= 3000, "a request waited {slowest} ms: {}", station.timeline());
        assert!(station.most(400) <= needed * 5 / 4, "{}", station.timeline());
    }
}

#[test]
fn a_function_that_became_fast_while_idle_keeps_no_extra_pods() {
    let mut station = Station::new(10, 5000, Policy::default());
    station.run(300, 50, 2000);
    station.run(100, 0, 0);
    station.run(60, 50, 20);
    assert_eq!(station.most(440), 1, "{}", station.timeline());
}

#[test]
fn long_requests_of_a_drained_backlog_are_not_a_rise() {
    for (stable, idle) in [(6, 60), (60, 5)] {
        let policy = Policy {
            idle_timeout: Duration::from_secs(idle),
            stable_window: Duration::from_secs(stable),
            ..Policy::default()
        };
        let mut station = Station::new(5, 200_000, policy);
        station.policy.target = 2.5;
        station.run(1000, 1, 30_000);
        // Twelve are needed, and the backlog of the start adds the same number.
        assert!(station.most(0) <= 25, "{}", station.timeline());
    }
}

#[test]
fn a_target_in_requests_per_second_beyond_the_capacity_of_a_pod_does_not_oscillate() {
    // Two slots of nine seconds each serve 0.22 requests a second and not 0.5.
    let windows = |idle, stable, panic| Policy {
        idle_timeout: Duration::from_secs(idle),
        stable_window: Duration::from_secs(stable),
        panic_window: Duration::from_secs(panic),
        ..Policy::default()
    };
    for (rate, policy, needed) in [(1, windows(1, 6, 1), 5), (9, windows(1, 6, 1), 41), (1, Policy::default(), 5)] {
        let mut station = Station::new(2, 1000, policy);
        (station.policy.metric, station.policy.target) = (Metric::Rps, 0.5);
        station.run(600, rate, 9000);
        assert!(station.least(300) >= needed && station.turns(300) <= 2, "{needed} needed: {}", station.timeline());
        assert!(station.most(300) <= needed + 2, "{needed} needed: {}", station.timeline());
    }
}

/// The worst cases found for the bound that `overshoot_is_bounded` checks: at a limit of 1 there is no slot beyond the target.
#[test]
fn a_late_start_at_a_limit_of_one_requests_at_most_two_and_a_half_times_the_load() {
    for (rate, service, start) in [(20, 910, 1291), (164, 870, 1398), (157, 410, 3873), (194, 390, 8926)] {
        let mut station = Station::new(1, start, Policy { max: 10_000, ..Policy::default() });
        station.run(120, rate, service);
        let needed = pods((rate * service) as f64 / 1000.0);
        assert!(station.most(0) <= 5 * needed / 2 + 1, "{needed} needed: {}", station.timeline());
    }
}

#[test]
fn a_burst_on_top_of_a_load_is_not_a_standing_queue() {
    let mut station = Station::new(5, 2000, Policy { max: 1000, ..Policy::default() });
    station.run(120, 50, 300);
    station.arrive(500, 300);
    station.run(120, 50, 300);
    // The pods for one second of these arrivals, and not one per queued request.
    assert!(station.most(120) <= 50, "{}", station.timeline());
}

#[test]
fn a_reason_does_not_outlive_its_count() {
    let mut station = Station::new(1, 2000, Policy::default());
    station.arrive(20, 30_000);
    station.run(100, 0, 0);
    assert_eq!(station.last(), (0, 0, 0));
    // An activator wakes the revision, and the request is abandoned before the pod is ready.
    station.patience = Some(500);
    station.arrive(1, 100);
    station.run(10, 0, 0);
    assert_eq!(station.reasons.last(), Some(&Reason::KeptWarm), "{}", station.timeline());
    // Another client sets two pods, without a queue.
    station.run(60, 0, 0);
    station.wake(2);
    station.run(10, 0, 0);
    assert_eq!(station.reasons.last(), Some(&Reason::Panic), "{}", station.timeline());
}

#[test]
fn pods_of_a_backlog_are_forgotten_while_paused() {
    let mut station = Station::new(1, 1000, Policy::default());
    station.run(60, 5, 200);
    station.arrive(300, 1000);
    station.run(1, 5, 200);
    let most = station.most(60);
    station.policy.paused = true;
    station.run(600, 5, 200);
    station.wake(2);
    station.run(60, 5, 200);
    station.policy.paused = false;
    station.arrive(9, 200);
    station.run(20, 5, 200);
    assert!(station.most(700) < most / 2, "{most} were wanted ten minutes ago: {}", station.timeline());
}

#[test]
fn waiting_for_capacity_is_not_start_time() {
    let mut station = Station::new(5, 1000, Policy::default());
    station.room = 3;
    station.run(300, 50, 300);
    assert_eq!((station.last().0, station.last().1), (5, 3));
    station.room = 100;
    station.run(10, 50, 300);
    let start = station.learned().start.unwrap_or_default();
    assert!(start <= Duration::from_secs(10), "{start:?}");
}

#[test]
fn repeated_operator_restarts_remove_no_pod_under_load() {
    let mut station = Station::new(5, 1000, Policy::default());
    station.run(60, 50, 300);
    for _ in 0..10 {
        station.restart();
        station.run(7, 50, 300);
    }
    assert_eq!((station.least(60), station.most(60)), (5, 5), "{}", station.timeline());
}
