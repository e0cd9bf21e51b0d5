//! Without a running operator, requests to existing Functions succeed.

use std::time::Duration;

use anyhow::Result;
use http::StatusCode;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use rouse_e2e::workspace::{TIMEOUT, until};
use serde_json::json;

use crate::test_env::{RELEASE, TestEnv};

async fn operators(env: &TestEnv, count: i32) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(env.client.clone(), RELEASE);
    let patch = Patch::Merge(json!({"spec": {"replicas": count}}));
    deployments.patch_scale("rouse-operator", &PatchParams::default(), &patch).await?;
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), RELEASE);
    until(&format!("{count} operators"), TIMEOUT, || async {
        let list = pods.list(&ListParams::default().labels("app.kubernetes.io/component=operator")).await?;
        let ready = deployments.get("rouse-operator").await?.status.unwrap_or_default().ready_replicas.unwrap_or(0);
        Ok((list.items.len() == count.unsigned_abs() as usize && ready == count).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_and_cold_requests_succeed_without_an_operator() -> Result<()> {
    let env = TestEnv::exclusive("operator").await?;
    env.ready("warm", json!({"scaling": {"min": 1}})).await?;
    env.ready("cold", json!({"scaling": {"initial": 0, "idleTimeout": "3s"}})).await?;
    operators(&env, 0).await?;
    let requests = async {
        let warm = env.get("warm", "/").await?;
        assert_eq!(warm.status, StatusCode::OK, "{}", warm.text());
        let cold = env.get("cold", "/").await?;
        assert_eq!(cold.status, StatusCode::OK, "{}", cold.text());
        assert_eq!(cold.header("rouse-cold-start"), Some("true"));
        anyhow::Ok(())
    }
    .await;
    operators(&env, 1).await?;
    requests?;
    // The new operator scales the woken Function to zero.
    env.terminating("cold", Duration::from_secs(90)).await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_restart_writes_nothing() -> Result<()> {
    let env = TestEnv::exclusive("restart").await?;
    env.ready("hello", json!({"scaling": {"min": 1}})).await?;
    let version = |d: Deployment| d.metadata.resource_version;
    let settled = until("the Deployment to settle", TIMEOUT, || async {
        let deployment = env.deployments().get("hello-00001").await?;
        Ok((deployment.status.as_ref().and_then(|s| s.ready_replicas) == Some(1)).then_some(deployment))
    })
    .await?;
    operators(&env, 0).await?;
    operators(&env, 1).await?;
    // The operator has caught up when a Function that was created later is ready.
    env.ready("later", json!({"scaling": {"initial": 0}})).await?;
    assert_eq!(
        version(env.deployments().get("hello-00001").await?),
        version(settled),
        "a restart wrote to the Deployment"
    );
    env.finish().await
}
