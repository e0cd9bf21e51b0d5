//! Deletion of a Function.

use std::time::Duration;

use anyhow::Result;
use kube::api::DeleteParams;
use rouse_e2e::workspace::until;
use serde_json::json;
use tokio::time::Instant;

use crate::test_env::TestEnv;

#[tokio::test(flavor = "multi_thread")]
async fn deletion_removes_all_objects() -> Result<()> {
    let env = TestEnv::new("delete").await?;
    env.ready("hello", json!({})).await?;
    env.apply("hello", json!({"env": [{"name": "HELLO_GREETING", "value": "again"}]})).await?;
    until("a second revision", rouse_e2e::workspace::TIMEOUT, || async {
        Ok(env.children("hello").await?.contains(&"Deployment/hello-00002".to_owned()).then_some(()))
    })
    .await?;
    env.delete("hello").await?;
    until("removal of the namespace from the ingress", rouse_e2e::workspace::TIMEOUT, || async {
        let (read, ingress) =
            env.kubectl(&["get", "ingress", "--namespace", crate::test_env::RELEASE, "--output", "yaml"]).await?;
        Ok((read && !ingress.contains(&env.namespace)).then_some(()))
    })
    .await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_fails_parked_requests() -> Result<()> {
    let env = TestEnv::new("parked").await?;
    let spec = json!({"env": [{"name": "HELLO_NEVER_LISTEN", "value": "1"}], "scaling": {"initial": 0}, "timeouts": {"coldStart": "110s"}});
    env.ready("parked", spec).await?;
    let request = tokio::spawn({
        let workspace = env.workspace.clone();
        async move { workspace.get("parked", "/").await }
    });
    until("a running pod", rouse_e2e::workspace::TIMEOUT, || async {
        Ok(env.pods("parked").await?.iter().any(|p| p.running_since().is_some()).then_some(()))
    })
    .await?;
    let deleted = Instant::now();
    env.functions().delete("parked", &DeleteParams::background()).await?;
    let response = request.await??;
    assert!([404, 503].contains(&response.status.as_u16()), "{} {}", response.status, response.text());
    assert!(deleted.elapsed() < Duration::from_secs(10), "failed after {:?}", deleted.elapsed());
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_recreated_under_the_same_name() -> Result<()> {
    let env = TestEnv::new("again").await?;
    for round in 0..3 {
        let greeting = format!("round {round}");
        env.ready(
            "phoenix",
            json!({"env": [{"name": "HELLO_GREETING", "value": greeting}], "scaling": {"initial": 0}}),
        )
        .await?;
        let response = env.get("phoenix", "/").await?;
        assert!(
            response.text().contains(&greeting),
            "{} of the deleted Function: {}",
            response.status,
            response.text()
        );
        env.functions().delete("phoenix", &DeleteParams::background()).await?;
    }
    env.finish().await
}
