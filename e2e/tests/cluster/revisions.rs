//! New revisions after a change of the container: no request waits for them, and none is lost.

use anyhow::Result;
use http::StatusCode;
use rouse_e2e::workspace::{TIMEOUT, until};
use serde_json::json;

use crate::{load::Load, test_env::TestEnv};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_is_rolled_out_under_load() -> Result<()> {
    let env = TestEnv::new("rollout").await?;
    let spec = |greeting: &str| json!({"env": [{"name": "HELLO_GREETING", "value": greeting}], "scaling": {"idleTimeout": "5s"}});
    env.ready("hello", spec("one")).await?;
    let load = Load::start(&env.workspace, "hello", 200, "/");
    for (revision, greeting) in [("hello-00002", "two"), ("hello-00003", "three")] {
        env.apply("hello", spec(greeting)).await?;
        until(&format!("{revision} to respond"), TIMEOUT, || async {
            Ok(env.get("hello", "/").await?.text().contains(greeting).then_some(()))
        })
        .await?;
    }
    until("the former revisions at zero", TIMEOUT, || async {
        Ok(env.pods("hello").await?.iter().all(|p| p.revision() == Some("hello-00003")).then_some(()))
    })
    .await?;
    load.stop_without_failures().await?;
    // A change outside of the container creates no revision.
    env.apply(
        "hello",
        json!({"env": [{"name": "HELLO_GREETING", "value": "three"}], "scaling": {"idleTimeout": "2s"}}),
    )
    .await?;
    env.condition("hello", "Ready", "True").await?;
    let status = env.functions().get("hello").await?.status.unwrap_or_default();
    assert_eq!(status.latest_revision.as_deref(), Some("hello-00003"));
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_image_receives_no_traffic() -> Result<()> {
    let env = TestEnv::new("broken").await?;
    env.ready("hello", json!({})).await?;
    env.apply("hello", json!({"image": "localhost/no-such-image:2"})).await?;
    let (reason, _) = env.condition("hello", "RevisionReady", "False").await?;
    assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}");
    for _ in 0..20 {
        let response = env.get("hello", "/").await?;
        assert_eq!(response.status, StatusCode::OK, "{}", response.text());
    }
    let status = env.functions().get("hello").await?.status.unwrap_or_default();
    assert_eq!(status.latest_revision.as_deref(), Some("hello-00002"));
    assert_eq!(status.traffic.iter().map(|t| t.revision.as_str()).collect::<Vec<_>>(), ["hello-00001"]);
    env.finish().await
}
