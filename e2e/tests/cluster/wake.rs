//! Cold starts.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use http::StatusCode;
use serde_json::json;

use crate::test_env::TestEnv;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_wakes_a_function_from_zero() -> Result<()> {
    let env = TestEnv::new("wake").await?;
    env.ready("hello", json!({"scaling": {"idleTimeout": "3s"}})).await?;
    env.without_pods("hello").await?;
    let (reason, _) = env.condition("hello", "Active", "False").await?;
    assert_eq!(reason, "Idle");

    let cold = env.get("hello", "/").await?;
    assert_eq!(cold.status, StatusCode::OK, "{}", cold.text());
    assert_eq!(cold.header("rouse-cold-start"), Some("true"));
    let phases = cold.phases();
    for phase in ["wake", "schedule", "start", "probe"] {
        assert!(phases.iter().any(|(name, _)| name == phase), "no {phase} in {phases:?}");
    }
    let sum: f64 = phases
        .iter()
        .filter(|(n, _)| ["wake", "schedule", "start", "probe"].contains(&n.as_str()))
        .map(|(_, d)| d)
        .sum();
    assert!(sum > 0.0 && sum <= cold.took.as_secs_f64() * 1000.0, "phases of {sum} ms in a request of {:?}", cold.took);

    let warm = env.get("hello", "/").await?;
    assert_eq!(warm.status, StatusCode::OK);
    assert_eq!(warm.header("rouse-cold-start"), None);
    env.condition("hello", "Active", "True").await?;

    // A second cold start.
    env.without_pods("hello").await?;
    let again = env.get("hello", "/").await?;
    assert_eq!((again.status, again.header("rouse-cold-start")), (StatusCode::OK, Some("true")));
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_right_after_apply_succeeds() -> Result<()> {
    let env = TestEnv::new("apply").await?;
    // Makes the ingress route the namespace, so that the first request to the second Function can be early.
    env.ready("first", json!({"scaling": {"initial": 0}})).await?;
    env.apply("second", json!({"scaling": {"initial": 0}})).await?;
    // The activator learns of the Function from its watch; from then on no request may fail.
    let response = rouse_e2e::workspace::until("a route for the Function", Duration::from_secs(20), || async {
        let response = env.get("second", "/").await?;
        Ok((response.status != StatusCode::NOT_FOUND).then_some(response))
    })
    .await?;
    assert_eq!(response.status, StatusCode::OK, "{}", response.text());
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_cold_functions_at_once() -> Result<()> {
    let env = TestEnv::new("twenty").await?;
    let names: Vec<String> = (0..20).map(|n| format!("hello-{n}")).collect();
    try_join_all(names.iter().map(|name| env.ready(name, json!({"scaling": {"initial": 0}})))).await?;
    for name in &names {
        assert!(env.pods(name).await?.is_empty(), "{name} was started although initial is 0");
    }
    let responses = try_join_all(names.iter().map(|name| env.get(name, "/"))).await?;
    for (name, response) in names.iter().zip(&responses) {
        assert_eq!(response.status, StatusCode::OK, "{name}: {}", response.text());
        assert_eq!(response.header("rouse-cold-start"), Some("true"), "{name}");
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_cold_requests_succeed() -> Result<()> {
    let env = TestEnv::new("crowd").await?;
    env.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let responses = try_join_all((0..300).map(|_| env.get("hello", "/"))).await?;
    let failed: Vec<_> =
        responses.iter().filter(|a| a.status != StatusCode::OK).map(|a| (a.status, a.text())).collect();
    assert!(failed.is_empty(), "{} of 300 failed, the first with {:?}", failed.len(), failed[0]);
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_concurrency_limit_holds_for_cold_requests() -> Result<()> {
    let env = TestEnv::new("limit").await?;
    env.ready("one", json!({"scaling": {"initial": 0, "concurrencyLimit": 1, "max": 3}})).await?;
    let responses = try_join_all((0..12).map(|_| env.get("one", "/?sleep_ms=300"))).await?;
    for response in &responses {
        assert_eq!(response.status, StatusCode::OK, "{}", response.text());
        let concurrent = response.header("hello-in-flight").context("hello did not report its concurrent requests")?;
        assert_eq!(concurrent, "1", "a pod with a limit of 1 had {concurrent} requests at once");
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_functions_wakes() -> Result<()> {
    let env = TestEnv::new("chain").await?;
    let names = ["first", "middle", "last"];
    for name in names {
        let greeting = json!([{"name": "HELLO_GREETING", "value": name}]);
        env.ready(name, json!({"env": greeting, "scaling": {"initial": 0}})).await?;
    }
    // Each request waits in the activator for the next Function, which is at zero too.
    let url = |name: &str, path: &str| format!("http://{name}.{}{path}", env.namespace);
    let middle = url("middle", &format!("/fetch?url={}", url("last", "/")));
    let response = env.get("first", &format!("/fetch?url={middle}")).await?;
    assert_eq!(response.status, StatusCode::OK, "{}", response.text());
    assert!(response.text().starts_with("last"), "{}", response.text());
    for name in names {
        assert_eq!(env.pods(name).await?.len(), 1, "of {name}");
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_inside_the_cluster_use_the_service_name() -> Result<()> {
    let env = TestEnv::new("inside").await?;
    env.ready("client", json!({})).await?;
    env.ready("backend", json!({"scaling": {"initial": 0}, "visibility": "Cluster"})).await?;
    let outside = env.get("backend", "/").await?;
    assert_eq!(outside.status, StatusCode::NOT_FOUND, "a Cluster Function responded to the ingress");
    for host in [
        "backend".to_owned(),
        format!("backend.{}", env.namespace),
        format!("backend.{}.svc", env.namespace),
        format!("backend.{}.svc.cluster.local", env.namespace),
    ] {
        let response = env.get("client", &format!("/fetch?url=http://{host}/")).await?;
        // The DNS search path resolves `backend`, but the Host header without the namespace is not routed.
        if host == "backend" {
            assert_eq!(response.status, StatusCode::NOT_FOUND, "{}", response.text());
        } else {
            assert_eq!(response.status, StatusCode::OK, "{host}: {}", response.text());
        }
    }
    env.finish().await
}
