use super::*;
use std::sync::Arc;

use crate::function::{
    build::{self, fixtures::*},
    validate::validate,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn applied(function: &Function, found: &Found) -> Result<Resources<Applied>, Invalid> {
    let build::Resources { latest, leftovers, revision, create, repair, service, remove, state: build::Prepared } =
        build::build(&validate(function)?, found, &names())?;
    Ok(Resources { latest, leftovers, revision, create, repair, service, remove, state: Applied::default() })
}

/// Puts the Deployment `name` into what was found.
fn deployment(found: &mut Found, name: &str, desired: i32, ready: i32) {
    let object = json!({"metadata": {"name": name}, "spec": {"replicas": desired}, "status": {"readyReplicas": ready}});
    found.deployments.insert(name.into(), Arc::new(serde_json::from_value(object).unwrap()));
}

fn resources(latest: &str) -> Result<Resources<Applied>, Invalid> {
    Ok(Resources {
        latest: latest.into(),
        leftovers: vec![],
        revision: None,
        create: vec![],
        repair: vec![],
        service: build::service::Plan::Keep,
        remove: vec![],
        state: Applied::default(),
    })
}

fn run(
    former: &FunctionStatus,
    found: &Found,
    applied: &Result<Resources<Applied>, Invalid>,
    second: i64,
) -> FunctionStatus {
    compute(&hello(), former, found, applied, &names(), at(second)).0
}

#[test]
fn the_first_status_says_where_and_what() {
    let function = hello();
    let found = Found::default();
    let applied = applied(&function, &found);
    let status = compute(&function, &FunctionStatus::default(), &found, &applied, &names(), at(0)).0;
    insta::assert_yaml_snapshot!("first_status", status);
}

#[test]
fn a_life_of_a_function() {
    let mut found = Found::default();
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
    assert_eq!(rollout.traffic[0].revision, "hello-00001", "calls stay until the new one is proven");
    deployment(&mut found, "hello-00002", 1, 1);
    let moved = run(&rollout, &found, &resources("hello-00002"), 41);
    assert_eq!(moved.traffic[0].revision, "hello-00002");
    deployment(&mut found, "hello-00002", 0, 0);
    assert_eq!(run(&moved, &found, &resources("hello-00002"), 80).traffic[0].revision, "hello-00002");
}

#[test]
fn an_invalid_change_leaves_the_traffic_where_it_is() {
    let mut found = Found::default();
    deployment(&mut found, "hello-00001", 1, 1);
    let ready = run(&FunctionStatus::default(), &found, &resources("hello-00001"), 0);
    let invalid = run(&ready, &found, &Err(Invalid::new("spec.podTemplate.x", "no")), 1);
    assert_eq!((invalid.traffic, invalid.latest_revision), (ready.traffic, ready.latest_revision));
    assert_eq!(invalid.conditions.iter().find(|c| c.type_ == READY).unwrap().reason, "Invalid");
}

#[test]
fn a_cluster_function_has_no_url() {
    let function = function(json!({"image": "i", "visibility": "Cluster"}));
    let status =
        compute(&function, &FunctionStatus::default(), &Found::default(), &resources("hello-00001"), &names(), at(0)).0;
    assert_eq!(status.url, None);
    assert_eq!(status.address.unwrap().url, "http://hello.default.svc.cluster.local");
}
