//! Restart of the activator under load.

use anyhow::Result;
use http::StatusCode;
use serde_json::json;

use crate::{
    load::Load,
    test_env::{RELEASE, TestEnv},
};

#[tokio::test(flavor = "multi_thread")]
async fn replacing_the_activator_under_load_loses_no_request() -> Result<()> {
    let env = TestEnv::exclusive("restart").await?;
    env.ready("hello", json!({"scaling": {"min": 1}})).await?;
    let load = Load::start(&env.workspace, "hello", 100, "/");
    // This request is in flight in the old activator while it terminates.
    let long = tokio::spawn({
        let workspace = env.workspace.clone();
        async move { workspace.get("hello", "/?sleep_ms=8000").await }
    });
    let restart = ["rollout", "restart", "deployment/rouse-activator", "--namespace", RELEASE];
    let (restarted, printed) = env.kubectl(&restart).await?;
    assert!(restarted, "{printed}");
    let status = ["rollout", "status", "deployment/rouse-activator", "--namespace", RELEASE, "--timeout=120s"];
    let (completed, printed) = env.kubectl(&status).await?;
    assert!(completed, "{printed}");
    let long = long.await??;
    assert_eq!(long.status, StatusCode::OK, "{}", long.text());
    load.stop_without_failures().await?;
    env.finish().await
}
