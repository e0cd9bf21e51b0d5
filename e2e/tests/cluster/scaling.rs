//! Scaling between one pod and many under load: the count, the reaction time, and no lost request.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use http::StatusCode;
use kube::api::{Patch, PatchParams};
use rouse_e2e::workspace::{TIMEOUT, Workspace, until};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::test_env::TestEnv;

/// Starts clients that send the next request after each response, and returns the failures.
fn closed_loop(
    workspace: &Workspace,
    name: &str,
    path: &str,
    number: usize,
    stop: &CancellationToken,
) -> JoinHandle<Vec<String>> {
    let (workspace, name, path, stop) = (workspace.clone(), name.to_owned(), path.to_owned(), stop.clone());
    tokio::spawn(async move {
        let one = || async {
            let mut failures = vec![];
            while !stop.is_cancelled() {
                match workspace.get(&name, &path).await {
                    Ok(response) if response.status == StatusCode::OK => {}
                    Ok(response) => failures.push(format!("{} {}", response.status, response.text())),
                    Err(error) => failures.push(format!("{error:#}")),
                }
            }
            failures
        };
        futures::future::join_all((0..number).map(|_| one())).await.concat()
    })
}

/// Returns the desired count of the first revision.
async fn desired(env: &TestEnv, name: &str) -> Result<i32> {
    let scale = env.deployments().get_scale(&format!("{name}-00001")).await?;
    Ok(scale.spec.and_then(|s| s.replicas).unwrap_or(0))
}

/// Waits until at least `pods` are desired, and returns the elapsed time.
async fn wait_for_desired(env: &TestEnv, name: &str, pods: i32) -> Result<Duration> {
    let started = Instant::now();
    until(&format!("{pods} desired pods of {name}"), TIMEOUT, || async {
        Ok((desired(env, name).await? >= pods).then_some(()))
    })
    .await?;
    Ok(started.elapsed())
}

/// Returns the explanation of `/debug/functions` for a Function.
async fn debug(env: &TestEnv, name: &str) -> Result<Value> {
    let texts = env.within_operators(&format!("/debug/functions/{}/{name}", env.namespace)).await?;
    let leader = texts.iter().find_map(|text| serde_json::from_str::<Value>(text).ok());
    leader.context("no operator explains its decisions")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenfold_load_step_scales_up_and_down() -> Result<()> {
    // Exclusive, since other tests on the machine would dominate the reaction time.
    let env = TestEnv::exclusive("step").await?;
    env.ready("hello", json!({"scaling": {"concurrencyLimit": 5, "idleTimeout": "8s", "stableWindow": "10s"}})).await?;
    let stop = CancellationToken::new();
    let few = closed_loop(&env.workspace, "hello", "/?sleep_ms=200", 5, &stop);
    // At 70 % of a limit of 5, five concurrent requests need two pods.
    wait_for_desired(&env, "hello", 2).await?;
    until("two pods", TIMEOUT, || async {
        Ok((env.pods("hello").await?.iter().filter(|p| p.ready()).count() >= 2).then_some(()))
    })
    .await?;
    let many = closed_loop(&env.workspace, "hello", "/?sleep_ms=200", 45, &stop);
    // Fifty concurrent requests need fifteen.
    let reaction = wait_for_desired(&env, "hello", 15).await?;
    println!("fifteen pods were desired {:.2} s after the load step", reaction.as_secs_f64());
    let most = until("fifteen ready pods", TIMEOUT, || async {
        let wanted = desired(&env, "hello").await?;
        let ready = env.pods("hello").await?.iter().filter(|p| p.ready()).count();
        Ok((i32::try_from(ready)? >= 15).then_some(wanted))
    })
    .await?;
    ensure!(most <= 17, "{most} pods are desired, fifteen are needed");
    let explained = debug(&env, "hello").await?;
    let text = explained.to_string();
    ensure!(text.contains("hello-00001") && text.contains("sudden rise"), "{explained:#}");
    stop.cancel();
    let failures = [few.await?, many.await?].concat();
    ensure!(failures.is_empty(), "{} requests failed, the first with {}", failures.len(), failures[0]);
    env.scaled_to_zero("hello").await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrency_limit_of_one_holds_for_twenty_clients() -> Result<()> {
    let env = TestEnv::new("single").await?;
    let scaling = json!({"scaling": {"initial": 0, "concurrencyLimit": 1, "max": 12, "idleTimeout": "5s"}});
    env.ready("one", scaling).await?;
    for round in 0..3 {
        let responses = try_join_all((0..20).map(|_| env.get("one", "/?sleep_ms=300"))).await?;
        for response in &responses {
            ensure!(response.status == StatusCode::OK, "round {round}: {} {}", response.status, response.text());
            let concurrent =
                response.header("hello-in-flight").context("hello did not report its concurrent requests")?;
            ensure!(concurrent == "1", "round {round}: a pod with a limit of 1 had {concurrent} requests at once");
        }
        let count = desired(&env, "one").await?;
        ensure!(count >= 2, "{count} pods for twenty clients at a limit of one");
        ensure!(count <= 12, "{count} pods, though scaling.max is 12");
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_drained_before_a_scale_down() -> Result<()> {
    let env = TestEnv::new("drain").await?;
    let spec = |max: u32| {
        json!({
            "scaling": {"concurrencyLimit": 2, "min": 1, "max": max, "idleTimeout": "6s"},
            // Shorter than the requests: a pod with a request would be killed before the response.
            "podTemplate": {"spec": {"terminationGracePeriodSeconds": 4}},
        })
    };
    env.ready("hello", spec(4)).await?;
    let long = try_join_all((0..6).map(|_| env.get("hello", "/?sleep_ms=20000")));
    let lowered = async {
        wait_for_desired(&env, "hello", 3).await?;
        until("three pods with requests", TIMEOUT, || async {
            Ok((env.pods("hello").await?.iter().filter(|p| p.ready()).count() >= 3).then_some(()))
        })
        .await?;
        env.apply("hello", spec(1)).await?;
        until("one remaining pod", TIMEOUT, || async {
            let pods = env.pods("hello").await?;
            Ok((pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).count() == 1).then_some(()))
        })
        .await
    };
    let (responses, ()) = futures::try_join!(long, lowered)?;
    for response in &responses {
        ensure!(response.status == StatusCode::OK, "{} {}", response.status, response.text());
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_count_is_corrected_and_recorded() -> Result<()> {
    let env = TestEnv::new("hand").await?;
    env.ready("hello", json!({"scaling": {"min": 1, "max": 3, "idleTimeout": "2s"}})).await?;
    let scale = async |replicas: u32| {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        env.deployments().patch_scale("hello-00001", &PatchParams::default(), &patch).await
    };
    scale(5).await?;
    until("the correction of the count", TIMEOUT, || async { Ok((desired(&env, "hello").await? <= 3).then_some(())) })
        .await?;
    until("the event", TIMEOUT, || async {
        let (_, printed) = env.kubectl(&["get", "events", "--namespace", &env.namespace]).await?;
        Ok(printed.contains("ScaleCorrected").then_some(()))
    })
    .await?;
    // With `paused`, a manual count is kept.
    env.apply("hello", json!({"scaling": {"min": 1, "max": 3, "idleTimeout": "2s", "paused": true}})).await?;
    env.condition("hello", "Ready", "True").await?;
    until("the pause of the autoscaler", TIMEOUT, || async {
        Ok(debug(&env, "hello").await?.to_string().contains("scaling.paused").then_some(()))
    })
    .await?;
    scale(4).await?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        ensure!(desired(&env, "hello").await? == 4, "a manual count was changed");
        sleep(Duration::from_millis(250)).await;
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_keeps_pods() -> Result<()> {
    let env = TestEnv::new("schedule").await?;
    // Every minute for two minutes, so it is always active.
    let schedules = json!([{"cron": "* * * * *", "timeZone": "Europe/Paris", "duration": "2m", "min": 2}]);
    env.ready("hello", json!({"scaling": {"initial": 0, "idleTimeout": "1s", "schedules": schedules}})).await?;
    until("two pods", TIMEOUT, || async {
        Ok((env.pods("hello").await?.iter().filter(|p| p.ready()).count() == 2).then_some(()))
    })
    .await?;
    env.apply("hello", json!({"scaling": {"initial": 0, "idleTimeout": "1s"}})).await?;
    env.scaled_to_zero("hello").await?;
    env.finish().await
}
