//! A change of the container is a new revision; nobody waits for it and nothing is lost by it.

use anyhow::Result;
use http::StatusCode;
use rouse_e2e::world::{PATIENCE, until};
use serde_json::json;

use crate::{load::Load, scene::Scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_takes_over_under_load() -> Result<()> {
    let scene = Scene::new("rollout").await?;
    let spec = |greeting: &str| json!({"env": [{"name": "HELLO_GREETING", "value": greeting}], "scaling": {"idleTimeout": "5s"}});
    scene.ready("hello", spec("one")).await?;
    let load = Load::begin(&scene.world, "hello", 200, "/");
    for (revision, greeting) in [("hello-00002", "two"), ("hello-00003", "three")] {
        scene.apply("hello", spec(greeting)).await?;
        until(&format!("{revision} to answer"), PATIENCE, || async {
            Ok(scene.get("hello", "/").await?.text().contains(greeting).then_some(()))
        })
        .await?;
    }
    until("the former revisions at zero", PATIENCE, || async {
        Ok(scene.pods("hello").await?.iter().all(|p| p.revision() == Some("hello-00003")).then_some(()))
    })
    .await?;
    load.end_well().await?;
    // A change that is not about the container makes no revision.
    scene
        .apply(
            "hello",
            json!({"env": [{"name": "HELLO_GREETING", "value": "three"}], "scaling": {"idleTimeout": "2s"}}),
        )
        .await?;
    scene.condition("hello", "Ready", "True").await?;
    let status = scene.functions().get("hello").await?.status.unwrap_or_default();
    assert_eq!(status.latest_revision.as_deref(), Some("hello-00003"));
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_image_never_takes_traffic() -> Result<()> {
    let scene = Scene::new("broken").await?;
    scene.ready("hello", json!({})).await?;
    scene.apply("hello", json!({"image": "localhost/no-such-image:2"})).await?;
    let (reason, _) = scene.condition("hello", "RevisionReady", "False").await?;
    assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}");
    for _ in 0..20 {
        let answer = scene.get("hello", "/").await?;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    let status = scene.functions().get("hello").await?.status.unwrap_or_default();
    assert_eq!(status.latest_revision.as_deref(), Some("hello-00002"));
    assert_eq!(status.traffic.iter().map(|t| t.revision.as_str()).collect::<Vec<_>>(), ["hello-00001"]);
    scene.done().await
}
