//! What people ask for: schedules, a pause, a count of their own, an explanation.

use super::*;
use crate::scaler::{Explainer, NotExplained};

#[tokio::test(start_paused = true)]
async fn a_schedule_brings_pods_and_an_event() {
    let always = json!({"cron": "* * * * *", "timeZone": "Europe/Berlin", "duration": "2m", "min": 3});
    let rig = Rig::new(&json!({"schedules": [always]}));
    rig.deployment("1", 0, 0);
    let again = rig.look().await.unwrap();
    assert!(again <= Duration::from_secs(60), "{again:?}");
    assert_eq!(rig.counts(), [3]);
    let told = rig.told();
    assert_eq!(told.len(), 1);
    assert_eq!(
        (told[0].0.as_str(), told[0].1.as_str()),
        ("Scheduled", "f-00001 is scaled from 0 to 3: a schedule is on")
    );
    // It is taken out of the spec.
    rig.deployment("2", 3, 3);
    rig.activator();
    rig.frame(0, 0, 0);
    rig.function(&json!({"image": "i"}), None);
    for _ in 0..31 {
        rig.look().await;
        advance(1).await;
        rig.heartbeat();
    }
    rig.look().await;
    assert_eq!(rig.counts().last(), Some(&0));
}

#[tokio::test(start_paused = true)]
async fn a_pause_leaves_the_count_alone() {
    let rig = Rig::new(&json!({"paused": true, "min": 1, "target": 1}));
    rig.activator();
    rig.deployment("1", 4, 4);
    rig.frame(0, 0, 0);
    for _ in 0..100 {
        rig.look().await;
        advance(1).await;
        rig.heartbeat();
    }
    rig.frame(50, 50, 0);
    rig.look().await;
    rig.deployment("2", 2, 2);
    rig.look().await;
    assert_eq!((rig.counts().len(), rig.told().len()), (0, 0));
    rig.function(&json!({"image": "i", "scaling": {"min": 6}}), None);
    rig.look().await;
    assert_eq!(rig.counts(), [6], "and then it goes on");
}

#[tokio::test(start_paused = true)]
async fn a_count_of_somebody_else_is_corrected_and_an_event_says_so_once() {
    let rig = Rig::new(&json!({"max": 2, "min": 2}));
    rig.activator();
    rig.frame(0, 0, 0);
    rig.deployment("1", 2, 2);
    rig.look().await;
    rig.deployment("2", 5, 2);
    rig.look().await;
    assert_eq!(rig.counts(), [2]);
    let told = rig.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, "ScaleCorrected");
    assert!(
        told[0]
            .1
            .starts_with("f-00001 was changed from 2 to 5 pods by somebody else and is scaled to 2 again: 2 wanted: "),
        "{}",
        told[0].1
    );
    rig.deployment("3", 2, 2);
    rig.look().await;
    rig.deployment("4", 1, 1);
    rig.look().await;
    assert_eq!((rig.counts(), rig.told().len()), (vec![2], 1), "another change is told of again");
    assert!(rig.scaler.metrics.text().unwrap().contains("scale_corrections_total 2"));
}

#[tokio::test(start_paused = true)]
async fn a_wake_is_no_correction() {
    let rig = Rig::new(&json!({"min": 2}));
    rig.activator();
    rig.frame(0, 0, 0);
    rig.deployment("1", 0, 0);
    *rig.status.lock() = 409;
    rig.look().await;
    *rig.status.lock() = 200;
    rig.deployment("2", 1, 0);
    rig.look().await;
    assert_eq!((rig.counts(), rig.told().len()), (vec![2], 0));
}

/// A call after an idle time of two minutes.
async fn call_after_a_pause(rig: &Rig, arrivals: u64) {
    advance(120).await;
    rig.frame(0, arrivals, 0);
    rig.look().await;
}

#[tokio::test(start_paused = true)]
async fn habits_outlive_the_process() {
    let spec = json!({"image": "i", "scaling": {"prewarm": "Auto"}});
    let rig = Rig::of(&spec, None);
    rig.activator();
    rig.deployment("1", 1, 1);
    rig.frame(0, 1, 0);
    rig.look().await;
    for arrivals in 2..=4 {
        call_after_a_pause(&rig, arrivals).await;
    }
    let written = rig.taken(|path| path.ends_with("/functions/f/status"));
    let [(_, body)] = &written[..] else { panic!("at once, and then not for ten minutes: {written:?}") };
    assert_eq!(body["status"].as_object().unwrap().len(), 1, "only that field: {body}");
    assert_eq!((&body["metadata"]["uid"], body["status"]["habits"].as_str()), (&json!(UID), Some("1:2.1;=0")));
    rig.function(&spec, Some("1:2.1;=0"));
    advance(600).await;
    rig.heartbeat();
    rig.look().await;
    let written = rig.taken(|path| path.ends_with("/functions/f/status"));
    assert_eq!(written[0].1["status"]["habits"], "1:2.2;=0", "what was learned meanwhile");

    let next = Rig::of(&spec, Some("1:2.2;=0"));
    next.deployment("1", 0, 0);
    next.look().await;
    assert!(next.taken(|path| path.ends_with("/status")).is_empty(), "nothing is new");
    let memory = next.scaler.memory.lock();
    let habits = memory[&key()].get("f-00001").unwrap().state.habits().unwrap().total();
    assert_eq!(habits, 2);
}

#[tokio::test(start_paused = true)]
async fn habits_go_when_nothing_is_to_be_learned() {
    let rig = Rig::of(&json!({"image": "i"}), Some("1:2.3;=0"));
    rig.deployment("1", 0, 0);
    rig.look().await;
    let written = rig.taken(|path| path.ends_with("/functions/f/status"));
    assert_eq!(written[0].1["status"], json!({}));
}

#[tokio::test(start_paused = true)]
async fn everything_is_explained() {
    let rig = Rig::new(&json!({"target": 1, "max": 1}));
    let explainer = Explainer::default();
    assert_eq!(explainer.explain(&key()), Err(NotExplained::NotLeading));
    let rule = explainer.begin(&rig.scaler);
    assert_eq!(explainer.explain(&FunctionKey::new("ns", "other")), Err(NotExplained::Unknown));
    rig.activator();
    rig.deployment("1", 2, 2);
    rig.pod("a", "2026-01-01T00:00:00Z", None);
    rig.pod("b", "2026-01-02T00:00:00Z", Some("-1000"));
    rig.says(&source(), 5, &[("a", 2, false), ("b", 1, true)]);
    rig.look().await;
    advance(1).await;
    rig.look().await;
    let said = explainer.explain(&key()).unwrap();
    assert_eq!((&said["function"], &said["mayGoDown"]), (&json!("ns/f"), &json!(true)));
    assert_eq!(said["activators"][0]["heardSecondsAgo"], json!(1.0));
    let revision = &said["revisions"][0];
    assert_eq!((&revision["desired"], &revision["demand"]["inFlight"]), (&json!(2), &json!(3)));
    assert_eq!(revision["activators"][0]["pods"][1], json!({"pod": "b", "inFlight": 1, "draining": true}));
    assert_eq!((&revision["policy"]["max"], &revision["policy"]["paused"]), (&json!(1), &json!(false)));
    assert_eq!(revision["decided"]["reason"], "max");
    let decisions = revision["decisions"].as_array().unwrap();
    assert_eq!(decisions.len(), 1, "one that is made again is told once: {decisions:?}");
    assert_eq!((&decisions[0]["from"], &decisions[0]["to"]), (&json!(2), &json!(1)));
    assert!(decisions[0]["why"].as_str().unwrap().starts_with("1 wanted: scaling.max (3 at once"));
    let expected = json!([{"pod": "b", "markedSecondsAgo": 1.0, "inFlight": 1, "drained": false}]);
    assert_eq!(revision["drains"], expected);
    drop(rule);
    assert_eq!(explainer.explain(&key()), Err(NotExplained::NotLeading));
}
