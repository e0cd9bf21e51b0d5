//! Without an operator nothing new is built, and every call is still answered.

use std::time::Duration;

use anyhow::Result;
use http::StatusCode;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use rouse_e2e::world::{PATIENCE, until};
use serde_json::json;

use crate::scene::{RELEASE, Scene};

async fn operators(scene: &Scene, count: i32) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(scene.client.clone(), RELEASE);
    let patch = Patch::Merge(json!({"spec": {"replicas": count}}));
    deployments.patch_scale("rouse-operator", &PatchParams::default(), &patch).await?;
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), RELEASE);
    until(&format!("{count} operators"), PATIENCE, || async {
        let list = pods.list(&ListParams::default().labels("app.kubernetes.io/component=operator")).await?;
        let ready = deployments.get("rouse-operator").await?.status.unwrap_or_default().ready_replicas.unwrap_or(0);
        Ok((list.items.len() == count.unsigned_abs() as usize && ready == count).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_and_cold_calls_still_work() -> Result<()> {
    let scene = Scene::alone("operator").await?;
    scene.ready("warm", json!({"scaling": {"min": 1}})).await?;
    scene.ready("cold", json!({"scaling": {"initial": 0, "idleTimeout": "3s"}})).await?;
    operators(&scene, 0).await?;
    let calls = async {
        let warm = scene.get("warm", "/").await?;
        assert_eq!(warm.status, StatusCode::OK, "{}", warm.text());
        let cold = scene.get("cold", "/").await?;
        assert_eq!(cold.status, StatusCode::OK, "{}", cold.text());
        assert_eq!(cold.header("rouse-cold-start"), Some("true"));
        anyhow::Ok(())
    }
    .await;
    operators(&scene, 1).await?;
    calls?;
    // Back again, it takes up its work: what was woken without it goes to zero.
    scene.terminating("cold", Duration::from_secs(90)).await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_starts_again_changes_nothing() -> Result<()> {
    let scene = Scene::alone("restart").await?;
    scene.ready("hello", json!({"scaling": {"min": 1}})).await?;
    let version = |d: Deployment| d.metadata.resource_version;
    let settled = until("the Deployment to settle", PATIENCE, || async {
        let deployment = scene.deployments().get("hello-00001").await?;
        Ok((deployment.status.as_ref().and_then(|s| s.ready_replicas) == Some(1)).then_some(deployment))
    })
    .await?;
    operators(&scene, 0).await?;
    operators(&scene, 1).await?;
    // It has caught up when it has built a Function that came after it.
    scene.ready("later", json!({"scaling": {"initial": 0}})).await?;
    assert_eq!(
        version(scene.deployments().get("hello-00001").await?),
        version(settled),
        "a restart wrote to the Deployment"
    );
    scene.done().await
}
