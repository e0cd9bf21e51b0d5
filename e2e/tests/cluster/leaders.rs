//! Two operators that both lead, as they may for a moment when one was cut off from the API server and does not know yet.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease};
use kube::{Api, api::PostParams};
use rouse_e2e::world::{PATIENCE, until};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    load::Load,
    scene::{RELEASE, Scene},
};

const SECOND: &str = "rouse-operator-second";

/// What lets the second have a Lease of its own.
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

/// The operator's Deployment once more, with another name and another Lease.
fn second(first: &Deployment) -> Result<Deployment> {
    let mut whole = serde_json::to_value(first)?;
    whole["metadata"] = json!({"name": SECOND, "namespace": RELEASE});
    whole["status"] = Value::Null;
    let labels = json!({"app": SECOND});
    whole["spec"]["selector"]["matchLabels"] = labels.clone();
    whole["spec"]["template"]["metadata"]["labels"] = labels;
    let env =
        whole["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut().context("it has no variables")?;
    let lease = env.iter_mut().find(|variable| variable["name"] == "ROUSE_LEASE_NAME").context("no Lease is named")?;
    lease["value"] = json!(SECOND);
    Ok(serde_json::from_value(whole)?)
}

/// Starts the second and waits until both lead.
async fn begin(scene: &Scene) -> Result<()> {
    scene.cluster.apply(&rights().to_string()).await?;
    let deployments: Api<Deployment> = Api::namespaced(scene.client.clone(), RELEASE);
    let second = second(&deployments.get("rouse-operator").await?)?;
    deployments.create(&PostParams::default(), &second).await?;
    let leases: Api<Lease> = Api::namespaced(scene.client.clone(), RELEASE);
    for name in ["rouse-operator", SECOND] {
        until(&format!("a holder of the Lease {name}"), PATIENCE, || async {
            let lease = leases.get_opt(name).await?;
            let holder = lease.and_then(|lease| lease.spec?.holder_identity);
            Ok(holder.filter(|holder| !holder.is_empty()).map(|_| ()))
        })
        .await?;
    }
    Ok(())
}

/// It goes, and what was made for it.
async fn end(scene: &Scene) -> Result<()> {
    let all = "deployment,role,rolebinding,lease";
    let args = ["delete", all, SECOND, "--namespace", RELEASE, "--ignore-not-found", "--cascade=foreground"];
    let (gone, said) = scene.kubectl(&args).await?;
    ensure!(gone, "{said}");
    Ok(())
}

fn spec(greeting: &str) -> Value {
    json!({
        "env": [{"name": "HELLO_GREETING", "value": greeting}],
        "scaling": {"concurrencyLimit": 5, "idleTimeout": "5s", "stableWindow": "6s"},
    })
}

/// Fifty calls a second of 300 ms are fifteen at once: three pods hold them, and five are wanted.
fn load(scene: &Scene) -> Load {
    Load::begin(&scene.world, "hello", 50, "/?sleep_ms=300")
}

/// Pods that are asked for.
async fn count(scene: &Scene, revision: &str) -> Result<i32> {
    let scale = scene.deployments().get_scale(revision).await?;
    Ok(scale.spec.and_then(|s| s.replicas).unwrap_or(0))
}

/// Waits until as many pods are asked for as the load wants, and have been for a while: on the way there calls pile up, the
/// more the slower the machine is, and more pods are wanted for them.
async fn settled(scene: &Scene, revision: &str) -> Result<()> {
    until("as many pods as the calls want", PATIENCE, || async {
        let seen = counts(scene, revision, Duration::from_secs(4)).await?;
        Ok(seen.iter().all(|pods| (4..=8).contains(pods)).then_some(()))
    })
    .await
}

/// The counts of a while, one after the other.
async fn counts(scene: &Scene, revision: &str, span: Duration) -> Result<Vec<i32>> {
    let (mut seen, begun) = (vec![], Instant::now());
    while begun.elapsed() < span {
        let now = count(scene, revision).await?;
        if seen.last() != Some(&now) {
            seen.push(now);
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(seen)
}

/// Up, another image, steady, and down, while both lead.
async fn play(scene: &Scene) -> Result<()> {
    begin(scene).await?;
    let load = load(scene);
    settled(scene, "hello-00001").await?;
    scene.apply("hello", spec("two")).await?;
    until("the new revision to have all calls", PATIENCE, || async {
        let traffic = scene.functions().get("hello").await?.status.unwrap_or_default().traffic;
        Ok((traffic.len() == 1 && traffic[0].revision == "hello-00002").then_some(()))
    })
    .await?;
    until("the former revision to be at zero", PATIENCE, || async {
        Ok((count(scene, "hello-00001").await? == 0).then_some(()))
    })
    .await?;
    // From here on nothing but the load decides, and it stays the same.
    settled(scene, "hello-00002").await?;
    let seen = counts(scene, "hello-00002", Duration::from_secs(10)).await?;
    // A machine that stalls makes calls pile up, which is a rise and its end. Two that do not agree would go on and on.
    ensure!(seen.iter().all(|pods| *pods >= 3) && seen.len() <= 4, "the counts were {seen:?}");
    let calls = load.end_well().await?;
    ensure!(calls.greetings.contains_key("two"), "{calls:?}");
    scene.asleep("hello").await?;
    // Each change made one revision, whoever made it.
    let revisions = scene.functions().get("hello").await?.status.unwrap_or_default().revisions;
    let names: Vec<_> = revisions.iter().map(|revision| revision.name.as_str()).collect();
    ensure!(names == ["hello-00002", "hello-00001"], "{names:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_leaders_lose_nothing_and_come_to_the_same_end() -> Result<()> {
    let scene = Scene::alone("leaders").await?;
    scene.ready("hello", spec("one")).await?;
    let played = play(&scene).await;
    // Also after a failure: the tests that follow are about one leader.
    end(&scene).await?;
    played?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_leader_under_load_goes_on_from_what_there_is() -> Result<()> {
    let scene = Scene::alone("leader").await?;
    scene.ready("hello", spec("one")).await?;
    let load = load(&scene);
    settled(&scene, "hello-00001").await?;
    for args in
        [&["restart", "deployment/rouse-operator"][..], &["status", "deployment/rouse-operator", "--timeout=120s"]]
    {
        let (good, said) = scene.kubectl(&[&["rollout"], args, &["--namespace", RELEASE]].concat()).await?;
        ensure!(good, "{said}");
    }
    // It has the activator's count of all calls since that began, which is no rise, and no demand from before, which is no fall.
    let seen = counts(&scene, "hello-00001", Duration::from_secs(15)).await?;
    ensure!(seen.iter().all(|pods| (3..=15).contains(pods)), "the counts were {seen:?}");
    load.end_well().await?;
    scene.done().await
}
