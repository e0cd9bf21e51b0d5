//! Invalid frames, removed activators, two leaders, and 429 from the API server.

use super::*;
use crate::scaler::stream::Validator;

/// Validates and applies a frame, as the reader of a stream does. Returns the number of faults.
fn send(rig: &Rig, validator: &mut Validator, sequence: u64, revision: RevisionDemand) -> usize {
    let at_us = u64::try_from(rig.scaler.now().as_micros()).unwrap();
    let frame =
        Frame { version: VERSION, process: "a".into(), sequence, at_us, more: false, revisions: vec![revision] };
    let mut faults = 0;
    if let Some(frame) = validator.validate(frame, |_| faults += 1) {
        rig.scaler.apply_frame(&source(), frame);
    }
    faults
}

fn report(in_flight: u64, arrivals: u64, completions: u64, request_us: u64) -> RevisionDemand {
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
async fn invalid_frames_do_not_change_the_count() {
    let rig = Rig::new(&json!({"target": 1, "idleTimeout": "10s"}));
    rig.activator();
    rig.deployment("1", 1, 1);
    let mut validator = Validator::default();
    assert_eq!(send(&rig, &mut validator, 0, report(1, 1, 0, 0)), 0);
    rig.reconcile().await;
    let invalid = [
        report(u64::MAX, 1, 0, 0),
        report(1, u64::MAX, 0, 0),
        report(1, 1, 0, u64::MAX),
        report(5000, 1, 0, 0),
        RevisionDemand { function: "g".into(), ..report(9, 9, 0, 0) },
    ];
    for (sequence, revision) in (1..).zip(invalid) {
        advance(1).await;
        assert_eq!(send(&rig, &mut validator, sequence, revision), 1);
        rig.reconcile().await;
        assert_eq!(rig.take_counts(), [] as [u64; 0], "one request needs one pod");
    }
    // The request ends, and the following frames are valid.
    assert_eq!(send(&rig, &mut validator, 6, report(0, 1, 1, 5_000_000)), 0);
    rig.reconcile().await;
    advance(10).await;
    assert_eq!(send(&rig, &mut validator, 7, report(0, 1, 1, 5_000_000)), 0);
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [0]);
}

#[tokio::test(start_paused = true)]
async fn excess_requests_keep_one_pod_and_add_none() {
    let rig = Rig::new(&json!({"target": 1, "idleTimeout": "10s"}));
    rig.activator();
    rig.deployment("1", 1, 1);
    let mut validator = Validator::default();
    for sequence in 0..60 {
        send(&rig, &mut validator, sequence, report(700, 7, 7, 0));
        rig.reconcile().await;
        advance(1).await;
    }
    assert_eq!(rig.take_counts(), [] as [u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_requests_of_a_removed_activator_end() {
    let rig = Rig::new(&json!({"idleTimeout": "10s"}));
    let other = Source { address: ([10, 0, 0, 2], 9090).into(), pod: None };
    rig.scaler.set_sources(&HashMap::from([(source(), true), (other.clone(), true)]));
    rig.deployment("1", 1, 1);
    rig.frame(0, 0, 0);
    rig.pods_frame(&other, 3, &[("p", 3, false)]);
    rig.reconcile().await;
    for _ in 0..60 {
        advance(1).await;
        rig.heartbeat();
        rig.reconcile().await;
    }
    assert_eq!(rig.take_counts(), [] as [u64; 0], "no current frames, and its pod exists");
    rig.activator();
    rig.heartbeat();
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [] as [u64; 0], "the idle timeout starts with its removal");
    advance(10).await;
    rig.heartbeat();
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [0]);
}

#[tokio::test(start_paused = true)]
async fn two_concurrent_leaders_write_once() {
    let [first, second] = [1, 2].map(|_| Rig::new(&json!({"min": 3})));
    for rig in [&first, &second] {
        rig.deployment("1", 1, 1);
    }
    first.reconcile().await;
    assert_eq!(first.take_counts(), [3]);
    // The API server refuses a patch that is based on version 1.
    *second.status.lock() = 409;
    let requeue = second.reconcile().await.unwrap();
    assert!(requeue <= Duration::from_secs(10));
    *second.status.lock() = 200;
    for rig in [&first, &second] {
        rig.deployment("2", 3, 1);
        rig.reconcile().await;
        assert_eq!((rig.take_counts(), rig.take_events()), (vec![], vec![]), "no conflicting write");
    }
}

#[tokio::test(start_paused = true)]
async fn a_429_pauses_all_writes() {
    let rig = Rig::new(&json!({"min": 3}));
    rig.deployment("1", 1, 1);
    *rig.status.lock() = 429;
    rig.reconcile().await;
    *rig.status.lock() = 200;
    let start = Instant::now();
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [3]);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}
