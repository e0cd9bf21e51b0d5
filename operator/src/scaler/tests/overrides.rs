//! Schedules, `scaling.paused`, manual counts, the persisted idle-time histogram, and `/debug/functions`.

use super::*;
use crate::scaler::{ExplainError, Explainer};

#[tokio::test(start_paused = true)]
async fn a_schedule_adds_pods_and_records_an_event() {
    let always = json!({"cron": "* * * * *", "timeZone": "Europe/Berlin", "duration": "2m", "min": 3});
    let rig = Rig::new(&json!({"schedules": [always]}));
    rig.deployment("1", 0, 0);
    let requeue = rig.reconcile().await.unwrap();
    assert!(requeue <= Duration::from_secs(60), "{requeue:?}");
    assert_eq!(rig.take_counts(), [3]);
    let events = rig.take_events();
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].0.as_str(), events[0].1.as_str()),
        ("Scheduled", "f-00001 was scaled from 0 to 3 pods: a schedule is on")
    );
    // The schedule is removed from the spec.
    rig.deployment("2", 3, 3);
    rig.activator();
    rig.frame(0, 0, 0);
    rig.function(&json!({"image": "i"}), None);
    for _ in 0..31 {
        rig.reconcile().await;
        advance(1).await;
        rig.heartbeat();
    }
    rig.reconcile().await;
    assert_eq!(rig.take_counts().last(), Some(&0));
}

#[tokio::test(start_paused = true)]
async fn paused_keeps_the_count() {
    let rig = Rig::new(&json!({"paused": true, "min": 1, "target": 1}));
    rig.activator();
    rig.deployment("1", 4, 4);
    rig.frame(0, 0, 0);
    for _ in 0..100 {
        rig.reconcile().await;
        advance(1).await;
        rig.heartbeat();
    }
    rig.frame(50, 50, 0);
    rig.reconcile().await;
    rig.deployment("2", 2, 2);
    rig.reconcile().await;
    assert_eq!((rig.take_counts().len(), rig.take_events().len()), (0, 0));
    rig.function(&json!({"image": "i", "scaling": {"min": 6}}), None);
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [6], "scaling resumes");
}

#[tokio::test(start_paused = true)]
async fn an_external_change_is_corrected_and_recorded_once() {
    let rig = Rig::new(&json!({"max": 2, "min": 2}));
    rig.activator();
    rig.frame(0, 0, 0);
    rig.deployment("1", 2, 2);
    rig.reconcile().await;
    rig.deployment("2", 5, 2);
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [2]);
    let events = rig.take_events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].0, "ScaleCorrected");
    assert!(
        events[0]
            .1
            .starts_with("f-00001 was scaled from 2 to 5 pods by another client and is scaled back to 2: 2 wanted: "),
        "{}",
        events[0].1
    );
    rig.deployment("3", 2, 2);
    rig.reconcile().await;
    rig.deployment("4", 1, 1);
    rig.reconcile().await;
    assert_eq!((rig.take_counts(), rig.take_events().len()), (vec![2], 1), "another change is recorded again");
    assert!(rig.scaler.metrics.text().unwrap().contains("scale_corrections_total 2"));
}

#[tokio::test(start_paused = true)]
async fn a_wake_is_not_an_external_change() {
    let rig = Rig::new(&json!({"min": 2}));
    rig.activator();
    rig.frame(0, 0, 0);
    rig.deployment("1", 0, 0);
    *rig.status.lock() = 409;
    rig.reconcile().await;
    *rig.status.lock() = 200;
    rig.deployment("2", 1, 0);
    rig.reconcile().await;
    assert_eq!((rig.take_counts(), rig.take_events().len()), (vec![2], 0));
}

/// A request after an idle time of two minutes.
async fn request_after_idle_time(rig: &Rig, arrivals: u64) {
    advance(120).await;
    rig.frame(0, arrivals, 0);
    rig.reconcile().await;
}

#[tokio::test(start_paused = true)]
async fn the_idle_time_histogram_survives_a_restart() {
    let spec = json!({"image": "i", "scaling": {"prewarm": "Auto"}});
    let rig = Rig::of(&spec, None);
    rig.activator();
    rig.deployment("1", 1, 1);
    rig.frame(0, 1, 0);
    rig.reconcile().await;
    for arrivals in 2..=4 {
        request_after_idle_time(&rig, arrivals).await;
    }
    let written = rig.take_writes(|path| path.ends_with("/functions/f/status"));
    let [(_, body)] = &written[..] else { panic!("not exactly one write within ten minutes: {written:?}") };
    assert_eq!(body["status"].as_object().unwrap().len(), 1, "only this field: {body}");
    assert_eq!((&body["metadata"]["uid"], body["status"]["idleHistogram"].as_str()), (&json!(UID), Some("1:2.1;=0")));
    rig.function(&spec, Some("1:2.1;=0"));
    advance(600).await;
    rig.heartbeat();
    rig.reconcile().await;
    let written = rig.take_writes(|path| path.ends_with("/functions/f/status"));
    assert_eq!(written[0].1["status"]["idleHistogram"], "1:2.2;=0", "includes the new idle time");

    let next = Rig::of(&spec, Some("1:2.2;=0"));
    next.deployment("1", 0, 0);
    next.reconcile().await;
    assert!(next.take_writes(|path| path.ends_with("/status")).is_empty(), "unchanged");
    let trackers = next.scaler.trackers.lock();
    let total = trackers[&key()].get("f-00001").unwrap().state.idle_histogram().unwrap().total();
    assert_eq!(total, 2);
}

#[tokio::test(start_paused = true)]
async fn the_idle_time_histogram_is_removed_without_prewarming() {
    let rig = Rig::of(&json!({"image": "i"}), Some("1:2.3;=0"));
    rig.deployment("1", 0, 0);
    rig.reconcile().await;
    let written = rig.take_writes(|path| path.ends_with("/functions/f/status"));
    assert_eq!(written[0].1["status"], json!({}));
}

#[tokio::test(start_paused = true)]
async fn explains_state_and_decisions() {
    let rig = Rig::new(&json!({"target": 1, "max": 1}));
    let explainer = Explainer::default();
    assert_eq!(explainer.explain(&key()), Err(ExplainError::NotLeading));
    let registration = explainer.register(&rig.scaler);
    assert_eq!(explainer.explain(&FunctionKey::new("ns", "other")), Err(ExplainError::Unknown));
    rig.activator();
    rig.deployment("1", 2, 2);
    rig.pod("a", "2026-01-01T00:00:00Z", None);
    rig.pod("b", "2026-01-02T00:00:00Z", Some("-1000"));
    rig.pods_frame(&source(), 5, &[("a", 2, false), ("b", 1, true)]);
    rig.reconcile().await;
    advance(1).await;
    rig.reconcile().await;
    let explanation = explainer.explain(&key()).unwrap();
    assert_eq!((&explanation["function"], &explanation["mayGoDown"]), (&json!("ns/f"), &json!(true)));
    assert_eq!(explanation["activators"][0]["heardSecondsAgo"], json!(1.0));
    let revision = &explanation["revisions"][0];
    assert_eq!((&revision["desired"], &revision["demand"]["inFlight"]), (&json!(2), &json!(3)));
    assert_eq!(revision["activators"][0]["pods"][1], json!({"pod": "b", "inFlight": 1, "draining": true}));
    assert_eq!((&revision["policy"]["max"], &revision["policy"]["paused"]), (&json!(1), &json!(false)));
    assert_eq!(revision["decided"]["reason"], "max");
    let decisions = revision["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 1, "a repeated decision is listed once: {decisions:?}");
    assert_eq!((&decisions[0]["from"], &decisions[0]["to"]), (&json!(2), &json!(1)));
    assert!(decisions[0]["why"].as_str().unwrap().starts_with("1 wanted: scaling.max (3 at once"));
    let expected = json!([{"pod": "b", "markedSecondsAgo": 1.0, "inFlight": 1, "drained": false}]);
    assert_eq!(revision["drains"], expected);
    drop(registration);
    assert_eq!(explainer.explain(&key()), Err(ExplainError::NotLeading));
}
