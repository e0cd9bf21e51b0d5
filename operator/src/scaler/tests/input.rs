//! What must do no harm: streams that lie, activators that vanish, two leaders.

use super::*;
use crate::scaler::stream::Witness;

/// What the reader of a stream would hand on.
fn lie(rig: &Rig, witness: &mut Witness, sequence: u64, revision: RevisionDemand) -> usize {
    let at_us = u64::try_from(rig.scaler.now().as_micros()).unwrap();
    let frame = Frame { version: VERSION, process: "a".into(), sequence, at_us, revisions: vec![revision] };
    let mut faults = 0;
    if let Some(frame) = witness.check(frame, |_| faults += 1) {
        rig.scaler.frame(&source(), frame);
    }
    faults
}

fn says(in_flight: u64, arrivals: u64, completions: u64, request_us: u64) -> RevisionDemand {
    RevisionDemand {
        namespace: "ns".into(),
        function: "f".into(),
        revision: "f-00001".into(),
        in_flight,
        arrivals,
        completions,
        request_us,
        ..RevisionDemand::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lies_ends_in_the_right_count() {
    let rig = Rig::new(&json!({"target": 1, "idleTimeout": "10s"}));
    rig.activator();
    rig.deployment("1", 1, 1);
    let mut witness = Witness::default();
    assert_eq!(lie(&rig, &mut witness, 0, says(1, 1, 0, 0)), 0);
    rig.look().await;
    let lies = [
        says(u64::MAX, 1, 0, 0),
        says(1, u64::MAX, 0, 0),
        says(1, 1, 0, u64::MAX),
        says(5000, 1, 0, 0),
        RevisionDemand { function: "g".into(), ..says(9, 9, 0, 0) },
    ];
    for (sequence, wrong) in (1..).zip(lies) {
        advance(1).await;
        assert_eq!(lie(&rig, &mut witness, sequence, wrong), 1);
        rig.look().await;
        assert_eq!(rig.counts(), [] as [u64; 0], "one request wants one pod, whatever else is said");
    }
    // The request ends, and what comes then is true.
    assert_eq!(lie(&rig, &mut witness, 6, says(0, 1, 1, 5_000_000)), 0);
    rig.look().await;
    advance(10).await;
    assert_eq!(lie(&rig, &mut witness, 7, says(0, 1, 1, 5_000_000)), 0);
    rig.look().await;
    assert_eq!(rig.counts(), [0]);
}

#[tokio::test(start_paused = true)]
async fn one_that_says_more_than_there_can_be_keeps_a_pod_and_gets_no_more() {
    let rig = Rig::new(&json!({"target": 1, "idleTimeout": "10s"}));
    rig.activator();
    rig.deployment("1", 1, 1);
    let mut witness = Witness::default();
    for sequence in 0..60 {
        lie(&rig, &mut witness, sequence, says(700, 7, 7, 0));
        rig.look().await;
        advance(1).await;
    }
    assert_eq!(rig.counts(), [] as [u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_requests_of_an_activator_that_vanishes_end_with_it() {
    let rig = Rig::new(&json!({"idleTimeout": "10s"}));
    let other = Source { address: ([10, 0, 0, 2], 9090).into(), pod: None };
    rig.scaler.set_sources(&HashMap::from([(source(), true), (other.clone(), true)]));
    rig.deployment("1", 1, 1);
    rig.frame(0, 0, 0);
    rig.says(&other, 3, &[("p", 3, false)]);
    rig.look().await;
    for _ in 0..60 {
        advance(1).await;
        rig.heartbeat();
        rig.look().await;
    }
    assert_eq!(rig.counts(), [] as [u64; 0], "it is silent, and its pod is there");
    rig.activator();
    rig.heartbeat();
    rig.look().await;
    assert_eq!(rig.counts(), [] as [u64; 0], "the idle time-out begins with its end");
    advance(10).await;
    rig.heartbeat();
    rig.look().await;
    assert_eq!(rig.counts(), [0]);
}

#[tokio::test(start_paused = true)]
async fn two_leaders_for_a_moment_write_once() {
    let [first, second] = [1, 2].map(|_| Rig::new(&json!({"min": 3})));
    for rig in [&first, &second] {
        rig.deployment("1", 1, 1);
    }
    first.look().await;
    assert_eq!(first.counts(), [3]);
    // The API server refuses what was decided from version 1.
    *second.status.lock() = 409;
    let again = second.look().await.unwrap();
    assert!(again <= Duration::from_secs(10));
    *second.status.lock() = 200;
    for rig in [&first, &second] {
        rig.deployment("2", 3, 1);
        rig.look().await;
        assert_eq!((rig.counts(), rig.told()), (vec![], vec![]), "neither fights the other");
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_hold_all_writes() {
    let rig = Rig::new(&json!({"min": 3}));
    rig.deployment("1", 1, 1);
    *rig.status.lock() = 429;
    rig.look().await;
    *rig.status.lock() = 200;
    let begun = Instant::now();
    rig.look().await;
    assert_eq!(rig.counts(), [3]);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
}
