//! Demand as work: the count with queues, slow pod starts and unusual requests.

use super::{station::Station, *};

fn steady(start: u64) -> Station {
    Station::new(5, start, Policy::default())
}

/// Fifty requests per second of 300 ms are a concurrency of fifteen: five pods at 70 % of a limit of 5.
#[test]
fn slow_starts_do_not_request_more_and_more_pods() {
    for start in [0, 300, 1000, 3000, 20_000, 60_000, 600_000] {
        let mut station = steady(start);
        station.run(120 + 4 * start / 1000, 50, 300);
        let timeline = station.timeline();
        assert!(station.most(0) <= 8, "a start of {start} ms: {timeline}");
        assert!(station.turns(0) <= 1, "a start of {start} ms: {timeline}");
        let drained = station.drained().unwrap_or(u64::MAX);
        assert!(drained <= 3 * start + 4_000, "a start of {start} ms: drained after {drained}: {timeline}");
        assert_eq!(station.seen.last().map(|(_, wanted, ..)| *wanted), Some(5), "a start of {start} ms: {timeline}");
    }
}

/// The activator's probe succeeds before the kubelet reports the pod ready.
#[test]
fn pods_that_serve_before_they_are_reported_ready_do_not_either() {
    for (start, lag) in [(300, 1000), (3000, 1000), (20_000, 500), (20_000, 3000), (60_000, 10_000)] {
        let mut station = steady(start);
        station.lag = lag;
        station.run(120 + 4 * start / 1000, 50, 300);
        assert!(station.most(0) <= 10 && station.turns(0) <= 1, "{start} ms, {lag} ms later: {}", station.timeline());
    }
}

#[test]
fn short_windows_do_not_either() {
    let policy = Policy {
        idle_timeout: Duration::from_secs(5),
        stable_window: Duration::from_secs(6),
        panic_window: Duration::from_secs(1),
        ..Policy::default()
    };
    for start in [300, 3000, 20_000] {
        let mut station = Station::new(5, start, policy.clone());
        station.run(200, 50, 300);
        let timeline = station.timeline();
        assert!(station.most(0) <= 8 && station.turns(0) <= 2, "a start of {start} ms: {timeline}");
        let least = station.least(2 * start / 1000 + 5);
        assert!(least >= 5, "it falls to {least}, below what the load needs: {timeline}");
    }
}

#[test]
fn a_second_cold_start_uses_the_measured_service_time() {
    let mut station = steady(20_000);
    station.run(100, 50, 300);
    station.run(60, 0, 0);
    assert_eq!(station.seen.last().map(|(_, wanted, ..)| *wanted), Some(0));
    station.run(2, 50, 300);
    assert_eq!(station.most(160), 5, "{}", station.timeline());
}

#[test]
fn a_new_revision_assumes_the_measurements_of_another() {
    let mut station = steady(20_000);
    station.assume(crate::Learned { start: Some(Duration::from_secs(20)), service: Some(0.3) });
    station.run(3, 50, 300);
    assert_eq!(station.most(0), 5, "{}", station.timeline());
}

#[test]
fn a_cold_burst_of_short_requests_needs_few_pods() {
    for start in [300, 800, 2000, 20_000] {
        let mut station = Station::new(10, start, Policy::default());
        station.arrive(1000, 10);
        station.run(30, 0, 0);
        assert!(station.most(0) <= 3, "a start of {start} ms: {}", station.timeline());
        let slowest = station.waits.iter().max().copied().unwrap_or(u64::MAX);
        assert!(slowest <= start + 1000, "one pod does a second of work in a second: {slowest}");
    }
}

#[test]
fn long_jobs_get_a_pod_each_as_their_age_grows() {
    let mut station = Station::new(1, 400, Policy::default());
    station.arrive(20, 30_000);
    station.run(100, 0, 0);
    assert_eq!(station.most(0), 20, "{}", station.timeline());
    let slowest = station.waits.iter().max().copied().unwrap_or(u64::MAX);
    assert!(slowest <= 7_000, "the last one waited {slowest} ms");
    assert_eq!(station.seen.last().map(|(_, wanted, ..)| *wanted), Some(0));
}

#[test]
fn requests_that_never_end_count_as_load() {
    let mut station = Station::new(10, 400, Policy::default());
    for _ in 0..20 {
        station.arrive(10, 10_000_000);
        station.run(5, 0, 0);
    }
    station.run(600, 0, 0);
    assert!((29..=34).contains(&station.least(600)) && station.most(0) <= 34, "{}", station.timeline());
    assert_eq!(station.turns(300), 0, "{}", station.timeline());
}

#[test]
fn short_requests_beside_endless_ones_are_not_a_rise() {
    let mut station = Station::new(10, 400, Policy::default());
    station.arrive(35, 10_000_000);
    station.run(300, 100, 10);
    // Thirty-five and one: six pods at seven in each.
    assert_eq!((station.least(200), station.most(200)), (6, 6), "{}", station.timeline());
}

#[test]
fn a_mixture_of_one_millisecond_and_ten_seconds_settles() {
    let mut station = Station::new(10, 1000, Policy::default());
    for _ in 0..300 {
        station.arrive(1, 10_000);
        station.run(1, 100, 10);
    }
    // A concurrency of ten long requests and one short request: two pods.
    assert!(station.most(60) <= 3 && station.least(60) >= 2, "{}", station.timeline());
    assert!(station.turns(60) <= 2, "{}", station.timeline());
}

#[test]
fn ten_thousand_a_second_of_a_tick_each() {
    let mut station = Station::new(100, 1000, Policy::default());
    station.run(60, 10_000, 10);
    // A concurrency of one hundred.
    assert!(station.most(0) <= 4, "{}", station.timeline());
    assert_eq!(station.least(30), 2, "{}", station.timeline());
}

#[test]
fn a_step_of_closed_loop_clients_is_detected_within_a_second() {
    let mut station = steady(400);
    station.join(5, 200);
    station.run(60, 0, 0);
    assert_eq!(station.least(30), 2);
    station.join(45, 200);
    station.run(60, 0, 0);
    assert!(station.reached(60, 15).is_some_and(|ms| ms <= 1000), "{:?}", station.reached(60, 15));
    // Clients between two requests are not counted, so the measured concurrency is slightly below fifty.
    assert!(station.most(60) <= 15 && station.least(62) >= 14 && station.turns(60) <= 2, "{}", station.timeline());
}

#[test]
fn a_step_of_arrivals_is_detected_within_a_second_and_overshoots_by_its_backlog_only() {
    let mut station = steady(400);
    station.run(60, 25, 200);
    station.run(60, 250, 200);
    assert!(station.reached(60, 15).is_some_and(|ms| ms <= 1250), "{:?}", station.reached(60, 15));
    assert!(station.most(60) <= 20 && station.turns(60) <= 1, "{}", station.timeline());
}

#[test]
fn a_load_equal_to_the_capacity_is_not_a_standing_queue() {
    // Another client requests three pods, which serve exactly the arrivals, with a standing queue.
    let mut station = steady(400);
    station.policy.max = 3;
    station.run(20, 50, 300);
    for _ in 0..20 {
        station.arrive(10, 300);
        station.run(1, 50, 300);
    }
    station.run(40, 50, 300);
    station.policy.max = 100;
    station.run(30, 50, 300);
    // Two hundred are queued: sixty seconds of work.
    assert!(station.most(80) <= 15, "{}", station.timeline());
}

#[test]
fn retries_of_a_client_are_not_new_work() {
    let mut station = steady(20_000);
    (station.patience, station.retries) = (Some(1000), true);
    station.run(100, 50, 300);
    assert!(station.most(0) <= 10, "{}", station.timeline());
    assert_eq!(station.least(70), 5, "{}", station.timeline());
}

#[test]
fn abandoned_requests_leave_no_pods_behind() {
    let mut station = steady(20_000);
    station.patience = Some(500);
    station.run(10, 50, 300);
    station.run(60, 0, 0);
    assert!(station.most(0) <= 5, "{}", station.timeline());
    assert_eq!(station.seen.last().map(|(_, wanted, ..)| *wanted), Some(0), "{}", station.timeline());
}

#[test]
fn with_insufficient_capacity_no_more_pods_are_requested_and_the_reason_is_reported() {
    let mut station = steady(300);
    station.room = 6;
    // The load of thirty pods.
    station.run(200, 300, 300);
    let after = station.most(0);
    assert!(after <= 70, "{}", station.timeline());
    let late = station.reasons.iter().rev().take(40).filter(|reason| **reason == Reason::WaitingForCapacity).count();
    assert!(late >= 30, "{:?}", station.reasons.iter().rev().take(40).collect::<Vec<_>>());
    assert!(station.most(100) <= after, "{}", station.timeline());
}

#[test]
fn pods_that_slow_each_other_down_are_not_added_without_limit() {
    let mut station = steady(300);
    // Beyond four pods, each pod slows down so much that the total throughput is constant.
    station.shared = Some(4);
    station.run(300, 100, 300);
    assert!(station.most(0) <= 50, "{}", station.timeline());
    assert!(station.reasons.contains(&Reason::Bottleneck), "{}", station.timeline());
}

#[test]
fn a_queue_that_is_abandoned_at_once_adds_no_pod() {
    let mut station = Station::new(10, 400, Policy::default());
    station.run(120, 60, 100);
    let before = station.seen.last().map(|(_, wanted, ..)| *wanted);
    for _ in 0..60 {
        station.arrive(6, 100);
        station.run(1, 60, 100);
    }
    assert!(station.most(121) <= before.unwrap_or(0) + 1, "{}", station.timeline());
}

/// As through an ingress: a thousand requests take half a second to arrive, and the pod serves before it is called ready.
#[test]
fn a_crowd_that_takes_half_a_second_to_arrive_needs_few_pods() {
    for (start, lag, service, most) in
        [(400, 0, 10, 3), (600, 300, 10, 3), (600, 300, 20, 4), (900, 500, 20, 4), (600, 300, 50, 8)]
    {
        let mut station = Station::new(10, start, Policy::default());
        station.lag = lag;
        station.run_for(500, 2000, service);
        station.run(20, 0, 0);
        assert!(station.most(0) <= most, "{start} {lag} {service}: {}", station.timeline());
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// For any start time, the count is at most 2.5 times the need of the load plus one, or the count of the slow start
        /// before a request has been served. The count does not oscillate, and settles at the need of the load.
        #[test]
        fn overshoot_is_bounded(
            rate in 1u64..200, service in 1u64..100, limit in 1u32..30, start in prop_oneof![0u64..2_000, 2_000u64..60_000, 60_000u64..600_000],
            lag in 0u64..3_000,
        ) {
            let service = service * 10;
            let mut station = Station::new(limit, start, Policy { max: 10_000, ..Policy::default() });
            station.lag = lag;
            station.run(240 + 5 * start / 1000, rate, service);
            let target = station.policy.target;
            let needed = pods((rate * service) as f64 / 1000.0 / target).max(1);
            let assumed = pods(rate as f64 * super::super::super::cold::ASSUMED / target);
            let timeline = || format!("{needed} needed: {}", station.timeline());
            prop_assert!(station.most(0) <= (5 * needed / 2 + 1).max(assumed), "{}", timeline());
            prop_assert!(station.turns(0) <= 3, "{}", timeline());
            let last = station.seen.last().map_or(0, |(_, wanted, ..)| *wanted);
            prop_assert!(last >= needed && last <= needed + 1, "{} at last, {}", last, timeline());
            prop_assert!(station.seen.iter().skip(4).all(|(_, wanted, ..)| *wanted > 0));
            prop_assert!(station.drained().is_some(), "{}", timeline());
        }

        /// More or longer requests never lower the count.
        #[test]
        fn more_work_never_needs_fewer_pods(
            rate in 1u64..100, service in 1u64..60, more in (0u64..100, 0u64..60), start in 0u64..30_000,
        ) {
            let settled = |rate: u64, service: u64| {
                let mut station = Station::new(5, start, Policy { max: 10_000, ..Policy::default() });
                station.run(200 + 4 * start / 1000, rate, service * 10);
                station.seen.last().map_or(0, |(_, wanted, ..)| *wanted)
            };
            let (less, much) = (settled(rate, service), settled(rate + more.0, service + more.1));
            prop_assert!(much + 1 >= less, "{} and then {}", less, much);
        }
    }
}
