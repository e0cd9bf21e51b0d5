//! What waits for a pod.

use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use http::StatusCode;
use rouse_e2e::world::until;
use serde_json::json;

use crate::scene::Scene;

/// Requests that wait for a pod of the function now.
async fn queued(scene: &Scene, name: &str) -> Result<f64> {
    let labels = [format!("function=\"{name}\""), format!("namespace=\"{}\"", scene.namespace)];
    scene.metric("rouse_activator_queued", &[&labels[0], &labels[1]]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_queue_holds() -> Result<()> {
    let scene = Scene::new("queue").await?;
    let spec = json!({
        "env": [{"name": "HELLO_START_DELAY_MS", "value": "6000"}],
        "scaling": {"initial": 0}, "queue": {"maxRequests": 5},
    });
    scene.ready("slow", spec).await?;
    let parked = tokio::spawn({
        let world = scene.world.clone();
        async move { try_join_all((0..5).map(|_| world.get("slow", "/"))).await }
    });
    until("five to be parked", Duration::from_secs(30), || async {
        Ok((queued(&scene, "slow").await? >= 5.0).then_some(()))
    })
    .await?;
    for _ in 0..3 {
        let refused = scene.get("slow", "/").await?;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.text());
        assert!(refused.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok()), "{:?}", refused.headers);
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    }
    for answer in parked.await?? {
        assert_eq!(answer.status, StatusCode::OK, "a parked request was lost: {}", answer.text());
    }
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_parked() -> Result<()> {
    let scene = Scene::new("leave").await?;
    let spec = json!({"env": [{"name": "HELLO_START_DELAY_MS", "value": "8000"}], "scaling": {"initial": 0, "idleTimeout": "2s"}});
    scene.ready("slow", spec).await?;
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let world = scene.world.clone();
            tokio::spawn(async move { world.get("slow", "/").await })
        })
        .collect();
    until("four to be parked", Duration::from_secs(30), || async {
        Ok((queued(&scene, "slow").await? >= 4.0).then_some(()))
    })
    .await?;
    for call in &calls {
        call.abort();
    }
    until("the slots to be free", Duration::from_secs(5), || async {
        Ok((queued(&scene, "slow").await? < 0.5).then_some(()))
    })
    .await?;
    // Nobody waits any more, so the pod that was woken for them goes.
    scene.zero("slow").await?;
    scene.done().await
}
