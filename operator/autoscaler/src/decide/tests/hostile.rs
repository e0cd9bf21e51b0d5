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
