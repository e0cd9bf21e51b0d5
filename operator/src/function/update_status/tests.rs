use super::*;
use std::sync::Arc;

use rouse_crds::conditions::{ACTIVE, READY};

use crate::function::build::pod_defaults::PodDefaults;
use crate::{
    function::{
        build::{self, fixtures::*},
        status::transitions::condition,
        validate::validate,
    },
    hosts::LostHost,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn applied(function: &Function, found: &Dereferenced) -> Result<Resources<Applied>, Invalid> {
    let build::Resources {
        latest,
        leftovers,
        revision,
        record,
        create,
        repair,
        service,
        remove,
        state: build::Prepared,
    } = build::build(&validate(function)?, found, &names(), &PodDefaults::default())?;
    let state = Applied { created: create.iter().map(kube::ResourceExt::name_any).collect(), ..Applied::default() };
    Ok(Resources { latest, leftovers, revision, record, create, repair, service, remove, state })
}

fn facts(stats: &RequestStats, second: i64) -> Facts<'_> {
    Facts { stats, max_reached: false, now: at(second) }
}

/// Adds the Deployment `name` to `found`.
fn deployment(found: &mut Dereferenced, name: &str, desired: i32, ready: i32) {
    let object = json!({"metadata": {"name": name}, "spec": {"replicas": desired}, "status": {"readyReplicas": ready}});
    found.workloads.deployments.insert(name.into(), Arc::new(serde_json::from_value(object).unwrap()));
}

fn resources(latest: &str) -> Result<Resources<Applied>, Invalid> {
    Ok(Resources {
        latest: latest.into(),
        leftovers: vec![],
        revision: None,
        record: None,
        create: vec![],
        repair: vec![],
        service: build::service::Plan::Keep,
        remove: vec![],
        state: Applied::default(),
    })
}

fn run(
    former: &FunctionStatus,
    found: &Dereferenced,
    applied: &Result<Resources<Applied>, Invalid>,
    second: i64,
) -> FunctionStatus {
    compute(&hello(), former, found, applied, &names(), &facts(&RequestStats::default(), second)).0
}

#[test]
fn first_status() {
    let function = hello();
    let found = Dereferenced::default();
    let applied = applied(&function, &found);
    let status =
        compute(&function, &FunctionStatus::default(), &found, &applied, &names(), &facts(&RequestStats::default(), 0))
            .0;
    insta::assert_yaml_snapshot!("first_status", status);
}

#[test]
fn lifecycle_of_a_function() {
    let mut found = Dereferenced::default();
    deployment(&mut found, "hello-00001", 1, 0);
    let starting = run(&FunctionStatus::default(), &found, &resources("hello-00001"), 0);
    assert_eq!(condition(&starting, READY).unwrap().status, "Unknown");

    deployment(&mut found, "hello-00001", 1, 1);
    let ready = run(&starting, &found, &resources("hello-00001"), 1);
    assert_eq!(condition(&ready, READY).unwrap().status, "True");
    assert_eq!(run(&ready, &found, &resources("hello-00001"), 99), ready, "no change, no write");

    deployment(&mut found, "hello-00001", 0, 0);
    let idle = run(&ready, &found, &resources("hello-00001"), 31);
    assert_eq!(condition(&idle, READY), condition(&ready, READY), "zero is healthy");
    assert_eq!(condition(&idle, ACTIVE).unwrap().status, "False");
    assert_eq!(idle.replicas, Some(ReplicaStatus { desired: 0, ready: 0 }));

    deployment(&mut found, "hello-00002", 1, 0);
    let rollout = run(&idle, &found, &resources("hello-00002"), 40);
    assert_eq!(rollout.latest_revision.as_deref(), Some("hello-00002"));
    assert_eq!(rollout.traffic[0].revision, "hello-00001", "traffic stays until the new revision is verified");
    deployment(&mut found, "hello-00002", 1, 1);
    let moved = run(&rollout, &found, &resources("hello-00002"), 41);
    assert_eq!(moved.traffic[0].revision, "hello-00002");
    deployment(&mut found, "hello-00002", 0, 0);
    assert_eq!(run(&moved, &found, &resources("hello-00002"), 80).traffic[0].revision, "hello-00002");
}

#[test]
fn an_invalid_change_keeps_the_traffic_split() {
    let mut found = Dereferenced::default();
    deployment(&mut found, "hello-00001", 1, 1);
    let ready = run(&FunctionStatus::default(), &found, &resources("hello-00001"), 0);
    let invalid = run(&ready, &found, &Err(Invalid::new("spec.podTemplate.x", "no")), 1);
    assert_eq!((invalid.traffic, invalid.latest_revision), (ready.traffic, ready.latest_revision));
    assert_eq!(invalid.conditions.iter().find(|c| c.type_ == READY).unwrap().reason, "Invalid");
}

#[test]
fn a_cluster_function_has_no_url() {
    let function = function(json!({"image": "i", "visibility": "Cluster"}));
    let (former, found, applied) = (FunctionStatus::default(), Dereferenced::default(), resources("hello-00001"));
    let status = compute(&function, &former, &found, &applied, &names(), &facts(&RequestStats::default(), 0)).0;
    assert_eq!(status.url, None);
    assert_eq!(status.address.unwrap().url, "http://hello.default.svc.cluster.local");
}

#[test]
fn revisions_are_listed_newest_first() {
    let mut found = Dereferenced::default();
    deployment(&mut found, "hello-00001", 2, 2);
    deployment(&mut found, "hello-00002", 1, 0);
    let revision = json!({
        "metadata": {"name": "hello-00001", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "revision": 1, "data": {"container": {"image": "i:1"}, "template": {}},
    });
    found.revisions.insert("hello-00001".into(), Arc::new(serde_json::from_value(revision).unwrap()));
    let status = run(&FunctionStatus::default(), &found, &resources("hello-00002"), 0);
    assert_eq!(
        serde_json::to_value(&status.revisions).unwrap(),
        json!([
            {"name": "hello-00002", "image": "", "ready": 0, "percent": 100},
            {"name": "hello-00001", "image": "i:1", "created": "2026-01-01T00:00:00Z", "ready": 2, "percent": 0},
        ])
    );
}

#[test]
fn a_created_revision_is_listed() {
    let function = hello();
    let found = Dereferenced::default();
    let mut applied = applied(&function, &found).unwrap();
    let created: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    applied.state.made = Some(super::super::apply::Made { image: "i".into(), created: Some(Time(created)) });
    let status = run(&FunctionStatus::default(), &found, &Ok(applied), 0);
    let [revision] = &status.revisions[..] else { panic!("{:?}", status.revisions) };
    assert_eq!((revision.name.as_str(), revision.image.as_str()), ("hello-00001", "i"));
    assert_eq!(revision.created, Some(Time(created)));
}

/// Rollout steps in the status.
#[test]
fn a_rollout_in_steps() {
    let spec = json!({
        "image": "i:2", "rollout": {"steps": [10], "abortOn": {"errorRate": "5%"}},
        "traffic": [{"revision": "hello-00000", "percent": 50}, {"latest": true, "percent": 50, "tag": "next"}],
    });
    let function = function(spec);
    let mut found = Dereferenced::default();
    deployment(&mut found, "hello-00000", 1, 1);
    deployment(&mut found, "hello-00001", 1, 1);
    deployment(&mut found, "hello-00002", 1, 1);
    let former: FunctionStatus = serde_json::from_value(json!({
        "latestRevision": "hello-00001",
        "traffic": [{"revision": "hello-00000", "percent": 50}, {"revision": "hello-00001", "percent": 50, "latest": true}],
    }))
    .unwrap();
    let run = |former: &FunctionStatus, stats: &RequestStats, second: i64| {
        compute(&function, former, &found, &resources("hello-00002"), &names(), &facts(stats, second))
    };
    let (step, again) = run(&former, &RequestStats::default(), 0);
    assert_eq!(
        serde_json::to_value(&step.traffic).unwrap(),
        json!([
            {"revision": "hello-00000", "percent": 50},
            {"revision": "hello-00001", "percent": 45, "latest": true},
            {"revision": "hello-00002", "percent": 5, "latest": true, "tag": "next", "url": "http://next-hello.default.example.com"},
        ])
    );
    assert_eq!(again, Some(Duration::from_secs(1)), "the step is analyzed");
    assert_eq!(step.rollout.as_ref().unwrap().percent, 10);
    assert_eq!(run(&step, &RequestStats::default(), 59).0, step, "no change, no write");

    let bad = RequestStats { completed: 50, failed: 25, ..RequestStats::default() };
    let (aborted, again) = run(&step, &bad, 30);
    assert_eq!(again, None);
    assert_eq!(aborted.traffic[1].revision, "hello-00001");
    assert_eq!(aborted.traffic[1].percent, 50);
    let ready = condition(&aborted, READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "RolloutAborted"));
    assert!(ready.message.contains("25 of 50 requests failed"), "{}", ready.message);
    assert_eq!(run(&aborted, &RequestStats::default(), 9000).0, aborted, "it stays aborted");

    // `spec.traffic` names another revision, and the aborted revision has no pods any more.
    let pinned = super::super::build::fixtures::function(
        json!({"image": "i:2", "traffic": [{"revision": "hello-00001", "percent": 100}]}),
    );
    let mut asleep = Dereferenced::default();
    deployment(&mut asleep, "hello-00001", 1, 1);
    deployment(&mut asleep, "hello-00002", 0, 0);
    let (applied, none) = (resources("hello-00002"), RequestStats::default());
    let calm = compute(&pinned, &aborted, &asleep, &applied, &names(), &facts(&none, 9001)).0;
    assert_eq!(condition(&calm, READY).unwrap().status, "True", "{:?}", condition(&calm, READY));

    let done = run(&step, &RequestStats::default(), 60).0;
    assert_eq!((done.rollout, done.traffic[1].percent), (None, 50));
    assert_eq!(done.traffic[1].revision, "hello-00002");
}

#[test]
fn a_missing_revision_holds_the_rollout() {
    let function = function(json!({
        "image": "i:2", "rollout": {"steps": [10], "interval": "10s"},
        "traffic": [{"revision": "hello-00009", "percent": 90}, {"latest": true, "percent": 10}],
    }));
    let mut found = Dereferenced::default();
    deployment(&mut found, "hello-00001", 1, 1);
    deployment(&mut found, "hello-00002", 1, 1);
    let mut status: FunctionStatus = serde_json::from_value(json!({
        "latestRevision": "hello-00001", "traffic": [{"revision": "hello-00001", "percent": 100, "latest": true}],
    }))
    .unwrap();
    for second in 0..100 {
        let applied = resources("hello-00002");
        let (next, again) =
            compute(&function, &status, &found, &applied, &names(), &facts(&RequestStats::default(), second));
        assert_eq!((next.rollout.as_ref(), again), (None, None), "at {second}");
        assert_eq!(next.traffic[0].revision, "hello-00001");
        assert!(second == 0 || next == status, "the status must not change");
        status = next;
    }
    assert_eq!(condition(&status, "Routable").unwrap().reason, "RevisionMissing");
}

#[test]
fn a_tag_with_a_lost_host() {
    let function = function(json!({"image": "i", "traffic": [{"latest": true, "percent": 100, "tag": "next"}]}));
    let mut found = Dereferenced::default();
    deployment(&mut found, "hello-00001", 1, 1);
    found.lost_hosts = vec![LostHost {
        host: Some("next-hello.default.example.com".into()),
        reason: "HostConflict",
        message: "it belongs to the Function default/next-hello".into(),
    }];
    let (former, applied) = (FunctionStatus::default(), resources("hello-00001"));
    let status = compute(&function, &former, &found, &applied, &names(), &facts(&RequestStats::default(), 0)).0;
    assert_eq!((status.traffic[0].tag.as_deref(), &status.traffic[0].url), (Some("next"), &None));
    let routable = condition(&status, "Routable").unwrap();
    assert_eq!((routable.status.as_str(), routable.reason.as_str()), ("False", "HostConflict"));
    assert!(routable.message.contains("default/next-hello"), "{}", routable.message);
}

#[test]
fn a_written_status_is_used_until_the_watch_delivers_it() {
    let version = |text: &str| Some(text.to_owned());
    let ahead = |made: &str, now: &str| {
        let last = LastWritten { seen: version("100"), made: version(made), status: FunctionStatus::default() };
        last.is_ahead_of(version(now).as_ref())
    };
    assert!(ahead("105", "100"));
    assert!(ahead("105", "99"), "a restarted watch may be behind");
    assert!(ahead("105", "103"), "another client wrote between the read and the write");
    assert!(!ahead("105", "105"));
    assert!(!ahead("105", "1000"), "compared as numbers, not as text");
    assert!(ahead("opaque", "100"));
    assert!(!ahead("opaque", "103"));
}
