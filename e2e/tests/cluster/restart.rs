//! The activator is replaced while calls go through it.

use anyhow::Result;
use http::StatusCode;
use serde_json::json;

use crate::{
    load::Load,
    scene::{RELEASE, Scene},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_new_activator_takes_over_under_load() -> Result<()> {
    let scene = Scene::alone("restart").await?;
    scene.ready("hello", json!({"scaling": {"min": 1}})).await?;
    let load = Load::begin(&scene.world, "hello", 100, "/");
    // This one is in the old activator all the time that it goes.
    let long = tokio::spawn({
        let world = scene.world.clone();
        async move { world.get("hello", "/?sleep_ms=8000").await }
    });
    let restart = ["rollout", "restart", "deployment/rouse-activator", "--namespace", RELEASE];
    let (restarted, said) = scene.kubectl(&restart).await?;
    assert!(restarted, "{said}");
    let status = ["rollout", "status", "deployment/rouse-activator", "--namespace", RELEASE, "--timeout=120s"];
    let (done, said) = scene.kubectl(&status).await?;
    assert!(done, "{said}");
    let long = long.await??;
    assert_eq!(long.status, StatusCode::OK, "{}", long.text());
    load.end_well().await?;
    scene.done().await
}
