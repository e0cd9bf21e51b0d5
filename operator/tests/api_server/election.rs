//! Leader election between replicas.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rouse_operator::{cluster::client::client_for, telemetry::metrics::Metrics};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::rig::{LIMIT, Rig, Running, config, eventually, wait_for};

async fn replica(rig: &Rig, pod: &str) -> Running {
    let metrics = Metrics::default();
    let client = client_for(config().await, &metrics).unwrap();
    rig.operator_with(pod, client, metrics)
}

fn is_leader(operator: &Running) -> bool {
    operator.metric("rouse_operator_leader") > 0.5
}

#[tokio::test]
async fn the_second_replica_takes_over_when_the_leader_stops() {
    let rig = Rig::new("leader").await;
    let first = replica(&rig, "first").await;
    eventually("the first replica is the leader", async || is_leader(&first)).await;
    let second = replica(&rig, "second").await;
    let leases: Api<Lease> = Api::namespaced(rig.client.clone(), &rig.system);
    let version = |l: &Lease| l.metadata.resource_version.clone();
    let before = leases.get("rouse-operator").await.unwrap();
    wait_for(&leases, "rouse-operator", "is renewed", |l| version(l) != version(&before)).await;
    rig.apply("hello", &json!({"image": "i"})).await;
    rig.function("hello", "has a status", |f| f.status.is_some()).await;
    assert!(!is_leader(&second) && second.writes().is_empty(), "a replica that is not the leader writes nothing");

    let stopped = Instant::now();
    first.stop().await;
    eventually("the second replica is the leader", async || is_leader(&second)).await;
    assert!(stopped.elapsed() < Duration::from_secs(10), "a released Lease need not expire");
    rig.apply("other", &json!({"image": "i"})).await;
    rig.function("other", "has a status", |f| f.status.is_some()).await;
    rig.end(Some(second)).await;
}

#[tokio::test]
async fn a_leader_that_loses_its_lease_exits() {
    let rig = Rig::new("taken").await;
    let first = replica(&rig, "first").await;
    eventually("the first replica is the leader", async || is_leader(&first)).await;
    let leases: Api<Lease> = Api::namespaced(rig.client.clone(), &rig.system);
    let thief = json!({"spec": {"holderIdentity": "thief"}});
    leases.patch("rouse-operator", &PatchParams::default(), &Patch::Merge(thief)).await.unwrap();
    let ended = timeout(LIMIT, first.task).await.expect("it ends").unwrap();
    let error = format!("{:#}", ended.expect_err("with an error"));
    assert!(error.contains("held by thief"), "{error}");
    let lease = leases.get("rouse-operator").await.unwrap();
    assert_eq!(
        lease.spec.unwrap().holder_identity.as_deref(),
        Some("thief"),
        "it does not release what it does not hold"
    );
    rig.end(None).await;
}
