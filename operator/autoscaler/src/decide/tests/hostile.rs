//! Worlds that are out to mislead: what is learned from them has to be true, and no verdict may outlive its cause.

use super::{station::Station, *};

#[test]
fn clients_that_join_one_by_one_get_their_pods() {
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
fn a_bottleneck_that_is_gone_holds_nothing_back() {
    let mut station = Station::new(5, 300, Policy::default());
    station.run(60, 50, 300);
    station.shared = Some(4);
    station.run(300, 100, 300);
    assert_eq!(station.reasons.last(), Some(&Reason::Bottleneck), "{}", station.timeline());
    station.shared = None;
    station.run(60, 200, 300);
    // Twelve thousand wait, and more pods would serve them.
    assert!(station.reached(360, 30).is_some_and(|ms| ms <= 10_000), "{}", station.timeline());
    assert_eq!(station.last().2, 0, "{}", station.timeline());
}

#[test]
fn where_there_is_no_room_pods_are_tried_one_after_the_other() {
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
fn one_pod_that_never_starts_holds_nothing_back() {
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
fn pods_that_crash_and_come_back_say_nothing_of_a_start() {
    let mut station = Station::new(5, 2000, Policy::default());
    station.run(60, 50, 300);
    station.crash(2, 300_000);
    station.run(400, 50, 300);
    let start = station.learned().start.unwrap_or_default();
    assert!(start < Duration::from_secs(3), "{start:?}: {}", station.timeline());
}

#[test]
fn a_count_that_a_backlog_has_raised_does_not_fall_below_the_load() {
    // The load doubles, which is no rise, and requests take a hundred times as long, which the mean learns slowly.
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
fn a_function_that_was_fast_yesterday_and_is_slow_today_is_found_out_as_soon_as_a_new_one() {
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
fn a_function_that_was_slow_yesterday_and_is_fast_today_keeps_no_pods_for_that() {
    let mut station = Station::new(10, 5000, Policy::default());
    station.run(300, 50, 2000);
    station.run(100, 0, 0);
    station.run(60, 50, 20);
    assert_eq!(station.most(440), 1, "{}", station.timeline());
}

#[test]
fn long_requests_of_a_backlog_that_is_drained_are_no_rise() {
    for (stable, idle) in [(6, 60), (60, 5)] {
        let policy = Policy {
            idle_timeout: Duration::from_secs(idle),
            stable_window: Duration::from_secs(stable),
            ..Policy::default()
        };
        let mut station = Station::new(5, 200_000, policy);
        station.policy.target = 2.5;
        station.run(1000, 1, 30_000);
        // Twelve are needed, and the backlog of the start asks for as many again.
        assert!(station.most(0) <= 25, "{}", station.timeline());
    }
}
