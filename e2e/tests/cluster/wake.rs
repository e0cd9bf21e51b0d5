//! From zero to an answer.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use http::StatusCode;
use serde_json::json;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_wakes_a_function_from_zero() -> Result<()> {
    let scene = Scene::new("wake").await?;
    scene.ready("hello", json!({"scaling": {"idleTimeout": "3s"}})).await?;
    scene.zero("hello").await?;
    let (reason, _) = scene.condition("hello", "Active", "False").await?;
    assert_eq!(reason, "Idle");

    let cold = scene.get("hello", "/").await?;
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
    assert!(sum > 0.0 && sum <= cold.took.as_secs_f64() * 1000.0, "phases of {sum} ms in a call of {:?}", cold.took);

    let warm = scene.get("hello", "/").await?;
    assert_eq!(warm.status, StatusCode::OK);
    assert_eq!(warm.header("rouse-cold-start"), None);
    scene.condition("hello", "Active", "True").await?;

    // And again, from another zero.
    scene.zero("hello").await?;
    let again = scene.get("hello", "/").await?;
    assert_eq!((again.status, again.header("rouse-cold-start")), (StatusCode::OK, Some("true")));
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_right_after_apply_waits_for_the_function() -> Result<()> {
    let scene = Scene::new("apply").await?;
    // The ingress has to know the namespace before a call can be in time.
    scene.ready("first", json!({"scaling": {"initial": 0}})).await?;
    scene.apply("second", json!({"scaling": {"initial": 0}})).await?;
    // The activator may see the Function a moment after the API server has it; from then on nothing may fail.
    let answer = rouse_e2e::world::until("the function to be known", Duration::from_secs(20), || async {
        let answer = scene.get("second", "/").await?;
        Ok((answer.status != StatusCode::NOT_FOUND).then_some(answer))
    })
    .await?;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_cold_functions_at_once() -> Result<()> {
    let scene = Scene::new("twenty").await?;
    let names: Vec<String> = (0..20).map(|n| format!("hello-{n}")).collect();
    try_join_all(names.iter().map(|name| scene.ready(name, json!({"scaling": {"initial": 0}})))).await?;
    for name in &names {
        assert!(scene.pods(name).await?.is_empty(), "{name} was started although initial is 0");
    }
    let answers = try_join_all(names.iter().map(|name| scene.get(name, "/"))).await?;
    for (name, answer) in names.iter().zip(&answers) {
        assert_eq!(answer.status, StatusCode::OK, "{name}: {}", answer.text());
        assert_eq!(answer.header("rouse-cold-start"), Some("true"), "{name}");
    }
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_crowd_is_answered_whole() -> Result<()> {
    let scene = Scene::new("crowd").await?;
    scene.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let answers = try_join_all((0..300).map(|_| scene.get("hello", "/"))).await?;
    let failed: Vec<_> = answers.iter().filter(|a| a.status != StatusCode::OK).map(|a| (a.status, a.text())).collect();
    assert!(failed.is_empty(), "{} of 300 failed, the first with {:?}", failed.len(), failed[0]);
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_pod_holds_for_a_cold_crowd() -> Result<()> {
    let scene = Scene::new("limit").await?;
    scene.ready("one", json!({"scaling": {"initial": 0, "concurrencyLimit": 1, "max": 3}})).await?;
    let answers = try_join_all((0..12).map(|_| scene.get("one", "/?sleep_ms=300"))).await?;
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        let together = answer.header("hello-in-flight").context("hello does not say how many it had at once")?;
        assert_eq!(together, "1", "a pod with a limit of 1 had {together} requests at once");
    }
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_in_a_chain_wake_one_after_the_other() -> Result<()> {
    let scene = Scene::new("chain").await?;
    let names = ["first", "middle", "last"];
    for name in names {
        let greeting = json!([{"name": "HELLO_GREETING", "value": name}]);
        scene.ready(name, json!({"env": greeting, "scaling": {"initial": 0}})).await?;
    }
    // Each waits in the activator for the next, which is not there either.
    let url = |name: &str, path: &str| format!("http://{name}.{}{path}", scene.namespace);
    let middle = url("middle", &format!("/fetch?url={}", url("last", "/")));
    let answer = scene.get("first", &format!("/fetch?url={middle}")).await?;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(answer.text().starts_with("last"), "{}", answer.text());
    for name in names {
        assert_eq!(scene.pods(name).await?.len(), 1, "of {name}");
    }
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_inside_the_cluster_go_by_the_service_name() -> Result<()> {
    let scene = Scene::new("inside").await?;
    scene.ready("caller", json!({})).await?;
    scene.ready("callee", json!({"scaling": {"initial": 0}, "visibility": "Cluster"})).await?;
    let outside = scene.get("callee", "/").await?;
    assert_eq!(outside.status, StatusCode::NOT_FOUND, "a Cluster function answered the ingress");
    for host in [
        "callee".to_owned(),
        format!("callee.{}", scene.namespace),
        format!("callee.{}.svc", scene.namespace),
        format!("callee.{}.svc.cluster.local", scene.namespace),
    ] {
        let answer = scene.get("caller", &format!("/fetch?url=http://{host}/")).await?;
        // A search path makes `callee` a name in the cluster; the Host header is then short, so only the full names route.
        if host == "callee" {
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{}", answer.text());
        } else {
            assert_eq!(answer.status, StatusCode::OK, "{host}: {}", answer.text());
        }
    }
    scene.done().await
}
