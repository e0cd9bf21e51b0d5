//! Two operators that are leaders at the same time, as can happen briefly after a network partition.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::{Api, api::PostParams};
use rouse_e2e::workspace::{TIMEOUT, until};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    load::Load,
    test_env::{RELEASE, TestEnv},
};

const SECOND: &str = "rouse-operator-second";

/// RBAC objects for the Lease of the second operator.
fn rights() -> Value {
    let meta = json!({"name": SECOND, "namespace": RELEASE});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": [
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
        ]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": SECOND},
            "subjects": [{"kind": "ServiceAccount", "name": "rouse-operator", "namespace": RELEASE}]},
    ]})
}

/// Returns a copy of the operator's Deployment with another name and another Lease.
fn second(first: &Deployment) -> Result<Deployment> {
    let mut object = serde_json::to_value(first)?;
    object["metadata"] = json!({"name": SECOND, "namespace": RELEASE});
    object["status"] = Value::Null;
    let labels = json!({"app": SECOND});
    object["spec"]["selector"]["matchLabels"] = labels.clone();
    object["spec"]["template"]["metadata"]["labels"] = labels;
    let env = object["spec"]["template"]["spec"]["containers"][0]["env"]
        .as_array_mut()
        .context("the container has no variables")?;
    let lease = env
        .iter_mut()
        .find(|variable| variable["name"] == "ROUSE_LEASE_NAME")
        .context("ROUSE_LEASE_NAME is not set")?;
    lease["value"] = json!(SECOND);
    Ok(serde_json::from_value(object)?)
}

/// Starts the second operator and waits until both are leaders.
async fn start_second(env: &TestEnv) -> Result<()> {
    env.cluster.apply(&rights().to_string()).await?;
    let deployments: Api<Deployment> = Api::namespaced(env.client.clone(), RELEASE);
    let second = second(&deployments.get("rouse-operator").await?)?;
    deployments.create(&PostParams::default(), &second).await?;
    let leases: Api<Lease> = Api::namespaced(env.client.clone(), RELEASE);
    for name in ["rouse-operator", SECOND] {
        until(&format!("a holder of the Lease {name}"), TIMEOUT, || async {
            let lease = leases.get_opt(name).await?;
            let holder = lease.and_then(|lease| lease.spec?.holder_identity);
            Ok(holder.filter(|holder| !holder.is_empty()).map(|_| ()))
        })
        .await?;
    }
    Ok(())
}

/// Deletes the second operator and its objects.
async fn delete_second(env: &TestEnv) -> Result<()> {
    let all = "deployment,role,rolebinding,lease";
    let args = ["delete", all, SECOND, "--namespace", RELEASE, "--ignore-not-found", "--cascade=foreground"];
    let (deleted, printed) = env.kubectl(&args).await?;
    ensure!(deleted, "{printed}");
    Ok(())
}

fn spec(greeting: &str) -> Value {
    json!({
        "env": [{"name": "HELLO_GREETING", "value": greeting}],
        "scaling": {"concurrencyLimit": 5, "idleTimeout": "5s", "stableWindow": "6s"},
    })
}

/// Fifty requests per second of 300 ms are fifteen concurrent ones: three pods have the capacity, and five are desired.
fn load(env: &TestEnv) -> Load {
    Load::start(&env.workspace, "hello", 50, "/?sleep_ms=300")
}

/// Returns the desired count of a revision.
async fn count(env: &TestEnv, revision: &str) -> Result<i32> {
    let scale = env.deployments().get_scale(revision).await?;
    Ok(scale.spec.and_then(|s| s.replicas).unwrap_or(0))
}

/// Waits until the desired count has matched the load for 4 s. Before, a backlog grows, larger on a slow machine, and more
/// pods are desired.
async fn settled(env: &TestEnv, revision: &str) -> Result<()> {
    until("a desired count that matches the load", TIMEOUT, || async {
        let seen = counts(env, revision, Duration::from_secs(4)).await?;
        Ok(seen.iter().all(|pods| (4..=8).contains(pods)).then_some(()))
    })
    .await
}

/// Returns the sequence of desired counts during `span`.
async fn counts(env: &TestEnv, revision: &str, span: Duration) -> Result<Vec<i32>> {
    let (mut seen, started) = (vec![], Instant::now());
    while started.elapsed() < span {
        let now = count(env, revision).await?;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(seen)
}

/// Scales up, rolls out another image, keeps a steady load and scales to zero, while both are leaders.
async fn run_scenario(env: &TestEnv) -> Result<()> {
    start_second(env).await?;
    let load = load(env);
    settled(env, "hello-00001").await?;
    env.apply("hello", spec("two")).await?;
    until("all traffic at the new revision", TIMEOUT, || async {
        let traffic = env.functions().get("hello").await?.status.unwrap_or_default().traffic;
        Ok((traffic.len() == 1 && traffic[0].revision == "hello-00002").then_some(()))
    })
    .await?;
    until("zero pods of the former revision", TIMEOUT, || async {
        Ok((count(env, "hello-00001").await? == 0).then_some(()))
    })
    .await?;
    // From now on the load is constant.
    settled(env, "hello-00002").await?;
    let seen = counts(env, "hello-00002", Duration::from_secs(10)).await?;
    // A stall of the machine causes a backlog: one rise and one fall. Two leaders that disagree would alternate forever.
    ensure!(seen.iter().all(|pods| *pods >= 3) && seen.len() <= 4, "the counts were {seen:?}");
    let requests = load.stop_without_failures().await?;
    ensure!(requests.greetings.contains_key("two"), "{requests:?}");
    env.scaled_to_zero("hello").await?;
    // Each change created one revision.
    let revisions = env.functions().get("hello").await?.status.unwrap_or_default().revisions;
    let names: Vec<_> = revisions.iter().map(|revision| revision.name.as_str()).collect();
    ensure!(names == ["hello-00002", "hello-00001"], "{names:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_concurrent_leaders_converge_and_lose_no_request() -> Result<()> {
    let env = TestEnv::exclusive("leaders").await?;
    env.ready("hello", spec("one")).await?;
    let result = run_scenario(&env).await;
    // Also after a failure: later tests expect one leader.
    delete_second(&env).await?;
    result?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_under_load_keeps_the_pods() -> Result<()> {
    let env = TestEnv::exclusive("leader").await?;
    env.ready("hello", spec("one")).await?;
    let load = load(&env);
    settled(&env, "hello-00001").await?;
    for args in
        [&["restart", "deployment/rouse-operator"][..], &["status", "deployment/rouse-operator", "--timeout=120s"]]
    {
        let (succeeded, printed) = env.kubectl(&[&["rollout"], args, &["--namespace", RELEASE]].concat()).await?;
        ensure!(succeeded, "{printed}");
    }
    // The activator's counters contain all requests since its start, which must not count as a rise; the missing demand
    // before must not count as a fall.
    let seen = counts(&env, "hello-00001", Duration::from_secs(15)).await?;
    ensure!(seen.iter().all(|pods| (3..=15).contains(pods)), "the counts were {seen:?}");
    load.stop_without_failures().await?;
    env.finish().await
}
