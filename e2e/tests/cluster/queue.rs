//! The request queue of a Function.

use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use http::StatusCode;
use rouse_e2e::workspace::until;
use serde_json::json;

use crate::test_env::TestEnv;

/// Returns the number of queued requests of a Function.
async fn queued(env: &TestEnv, name: &str) -> Result<f64> {
    let labels = [format!("function=\"{name}\""), format!("namespace=\"{}\"", env.namespace)];
    env.metric("rouse_activator_queued", &[&labels[0], &labels[1]]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_queue_limit_are_rejected() -> Result<()> {
    let env = TestEnv::new("queue").await?;
    let spec = json!({
        "env": [{"name": "HELLO_START_DELAY_MS", "value": "6000"}],
        "scaling": {"initial": 0}, "queue": {"maxRequests": 5},
    });
    env.ready("slow", spec).await?;
    let parked = tokio::spawn({
        let workspace = env.workspace.clone();
        async move { try_join_all((0..5).map(|_| workspace.get("slow", "/"))).await }
    });
    until("five parked requests", Duration::from_secs(30), || async {
        Ok((queued(&env, "slow").await? >= 5.0).then_some(()))
    })
    .await?;
    for _ in 0..3 {
        let refused = env.get("slow", "/").await?;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "{}", refused.text());
        assert!(refused.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok()), "{:?}", refused.headers);
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    }
    for response in parked.await?? {
        assert_eq!(response.status, StatusCode::OK, "a parked request was lost: {}", response.text());
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_disconnects_while_parked_frees_its_slot() -> Result<()> {
    let env = TestEnv::new("leave").await?;
    let spec = json!({"env": [{"name": "HELLO_START_DELAY_MS", "value": "8000"}], "scaling": {"initial": 0, "idleTimeout": "2s"}});
    env.ready("slow", spec).await?;
    let requests: Vec<_> = (0..4)
        .map(|_| {
            let workspace = env.workspace.clone();
            tokio::spawn(async move { workspace.get("slow", "/").await })
        })
        .collect();
    until("four parked requests", Duration::from_secs(30), || async {
        Ok((queued(&env, "slow").await? >= 4.0).then_some(()))
    })
    .await?;
    for request in &requests {
        request.abort();
    }
    until("free slots", Duration::from_secs(5), || async { Ok((queued(&env, "slow").await? < 0.5).then_some(())) })
        .await?;
    // No request is left, so the Function scales to zero.
    env.without_pods("slow").await?;
    env.finish().await
}
