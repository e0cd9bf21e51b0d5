//! The end of a Function.

use std::time::Duration;

use anyhow::Result;
use kube::api::DeleteParams;
use rouse_e2e::world::until;
use serde_json::json;
use tokio::time::Instant;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_behind() -> Result<()> {
    let scene = Scene::new("delete").await?;
    scene.ready("hello", json!({})).await?;
    scene.apply("hello", json!({"env": [{"name": "HELLO_GREETING", "value": "again"}]})).await?;
    until("a second revision", rouse_e2e::world::PATIENCE, || async {
        Ok(scene.children("hello").await?.contains(&"Deployment/hello-00002".to_owned()).then_some(()))
    })
    .await?;
    scene.delete("hello").await?;
    until("the namespace to leave the ingress", rouse_e2e::world::PATIENCE, || async {
        let (read, ingress) =
            scene.kubectl(&["get", "ingress", "--namespace", crate::scene::RELEASE, "--output", "yaml"]).await?;
        Ok((read && !ingress.contains(&scene.namespace)).then_some(()))
    })
    .await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_requests_are_told() -> Result<()> {
    let scene = Scene::new("parked").await?;
    let spec = json!({"env": [{"name": "HELLO_NEVER_LISTEN", "value": "1"}], "scaling": {"initial": 0}, "timeouts": {"coldStart": "110s"}});
    scene.ready("gone", spec).await?;
    let call = tokio::spawn({
        let world = scene.world.clone();
        async move { world.get("gone", "/").await }
    });
    until("the pod to run", rouse_e2e::world::PATIENCE, || async {
        Ok(scene.pods("gone").await?.iter().any(|p| p.running_since().is_some()).then_some(()))
    })
    .await?;
    let deleted = Instant::now();
    scene.functions().delete("gone", &DeleteParams::background()).await?;
    let answer = call.await??;
    assert!([404, 503].contains(&answer.status.as_u16()), "{} {}", answer.status, answer.text());
    assert!(deleted.elapsed() < Duration::from_secs(10), "told after {:?}", deleted.elapsed());
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn made_again_under_the_same_name() -> Result<()> {
    let scene = Scene::new("again").await?;
    for round in 0..3 {
        let greeting = format!("round {round}");
        scene
            .ready(
                "phoenix",
                json!({"env": [{"name": "HELLO_GREETING", "value": greeting}], "scaling": {"initial": 0}}),
            )
            .await?;
        let answer = scene.get("phoenix", "/").await?;
        assert!(answer.text().contains(&greeting), "{} from another generation: {}", answer.status, answer.text());
        scene.functions().delete("phoenix", &DeleteParams::background()).await?;
    }
    scene.done().await
}
