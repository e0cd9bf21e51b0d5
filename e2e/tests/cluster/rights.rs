//! Authorization of the activator: it may wake Functions, and nothing else.

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rouse_e2e::workspace::client_as;
use serde_json::json;

use crate::test_env::{RELEASE, TestEnv};

#[tokio::test(flavor = "multi_thread")]
async fn the_activator_is_authorized_to_wake_only() -> Result<()> {
    let env = TestEnv::new("rights").await?;
    env.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let user = format!("system:serviceaccount:{RELEASE}:rouse-activator");
    let client = client_as(&env.cluster, &user).await?;
    let scale = async |namespace: &str, deployment: &str, replicas: u32| {
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        deployments.patch_scale(deployment, &PatchParams::default(), &patch).await.map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(scale(&env.namespace, "hello-00001", 1).await, Ok(()), "the activator could not wake a function");
    let raised = scale(&env.namespace, "hello-00001", 2).await;
    assert!(raised.as_ref().is_err_and(|printed| printed.contains("zero")), "from 1 to 2: {raised:?}");
    let lowered = scale(&env.namespace, "hello-00001", 0).await;
    assert!(lowered.as_ref().is_err_and(|printed| printed.contains("zero")), "from 1 to 0: {lowered:?}");
    let foreign = scale(RELEASE, "rouse-operator", 0).await;
    assert!(foreign.as_ref().is_err_and(|printed| printed.contains("Function")), "the operator itself: {foreign:?}");
    for (verb, what) in [("delete", "deployments"), ("create", "pods"), ("get", "secrets"), ("patch", "functions")] {
        let (_, printed) = env.kubectl(&["auth", "can-i", verb, what, "--all-namespaces", "--as", &user]).await?;
        assert!(printed.trim().starts_with("no"), "the activator may {verb} {what}: {printed}");
    }
    env.finish().await
}
