//! From one pod to many and back: as many as the calls want, soon, and nothing is lost on the way.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use http::StatusCode;
use kube::api::{Patch, PatchParams};
use rouse_e2e::world::{PATIENCE, World, until};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::scene::Scene;

/// So many callers, each of whom calls again as soon as it was answered. It gives the failures.
fn callers(world: &World, name: &str, path: &str, number: usize, stop: &CancellationToken) -> JoinHandle<Vec<String>> {
    let (world, name, path, stop) = (world.clone(), name.to_owned(), path.to_owned(), stop.clone());
    tokio::spawn(async move {
        let one = || async {
            let mut failures = vec![];
            while !stop.is_cancelled() {
                match world.get(&name, &path).await {
                    Ok(answer) if answer.status == StatusCode::OK => {}
                    Ok(answer) => failures.push(format!("{} {}", answer.status, answer.text())),
                    Err(error) => failures.push(format!("{error:#}")),
                }
            }
            failures
        };
        futures::future::join_all((0..number).map(|_| one())).await.concat()
    })
}

/// Pods that are asked for of the first revision.
async fn desired(scene: &Scene, name: &str) -> Result<i32> {
    let scale = scene.deployments().get_scale(&format!("{name}-00001")).await?;
    Ok(scale.spec.and_then(|s| s.replicas).unwrap_or(0))
}

/// Waits until so many pods or more are asked for, and gives how long that took.
async fn asked_for(scene: &Scene, name: &str, pods: i32) -> Result<Duration> {
    let begun = Instant::now();
    until(&format!("{pods} pods of {name} to be asked for"), PATIENCE, || async {
        Ok((desired(scene, name).await? >= pods).then_some(()))
    })
    .await?;
    Ok(begun.elapsed())
}

/// What the operator says of a Function on its debug page.
async fn debug(scene: &Scene, name: &str) -> Result<Value> {
    let texts = scene.of_operators(&format!("/debug/functions/{}/{name}", scene.namespace)).await?;
    let leader = texts.iter().find_map(|text| serde_json::from_str::<Value>(text).ok());
    leader.context("no operator explains its decisions")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_ten_times_gets_its_pods_and_gives_them_back() -> Result<()> {
    // Alone: the reaction is told in seconds, and twenty other tests beside it would say nothing of Rouse.
    let scene = Scene::alone("step").await?;
    scene
        .ready("hello", json!({"scaling": {"concurrencyLimit": 5, "idleTimeout": "8s", "stableWindow": "10s"}}))
        .await?;
    let stop = CancellationToken::new();
    let few = callers(&scene.world, "hello", "/?sleep_ms=200", 5, &stop);
    // At 70 % of a limit of 5, five at once are two pods.
    asked_for(&scene, "hello", 2).await?;
    until("two pods", PATIENCE, || async {
        Ok((scene.pods("hello").await?.iter().filter(|p| p.ready()).count() >= 2).then_some(()))
    })
    .await?;
    let many = callers(&scene.world, "hello", "/?sleep_ms=200", 45, &stop);
    // Fifty at once are fifteen.
    let reaction = asked_for(&scene, "hello", 15).await?;
    println!("fifteen pods were asked for {:.2} s after the step", reaction.as_secs_f64());
    let most = until("every pod to be ready", PATIENCE, || async {
        let wanted = desired(&scene, "hello").await?;
        let ready = scene.pods("hello").await?.iter().filter(|p| p.ready()).count();
        Ok((i32::try_from(ready)? >= 15).then_some(wanted))
    })
    .await?;
    ensure!(most <= 17, "{most} pods are asked for, though fifteen are enough");
    let explained = debug(&scene, "hello").await?;
    let text = explained.to_string();
    ensure!(text.contains("hello-00001") && text.contains("sudden rise"), "{explained:#}");
    stop.cancel();
    let failures = [few.await?, many.await?].concat();
    ensure!(failures.is_empty(), "{} calls failed, the first with {}", failures.len(), failures[0]);
    scene.asleep("hello").await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_under_twenty_parallel_calls() -> Result<()> {
    let scene = Scene::new("single").await?;
    let scaling = json!({"scaling": {"initial": 0, "concurrencyLimit": 1, "max": 12, "idleTimeout": "5s"}});
    scene.ready("one", scaling).await?;
    for round in 0..3 {
        let answers = try_join_all((0..20).map(|_| scene.get("one", "/?sleep_ms=300"))).await?;
        for answer in &answers {
            ensure!(answer.status == StatusCode::OK, "round {round}: {} {}", answer.status, answer.text());
            let together = answer.header("hello-in-flight").context("hello does not say how many it had at once")?;
            ensure!(together == "1", "round {round}: a pod with a limit of 1 had {together} requests at once");
        }
        let count = desired(&scene, "one").await?;
        ensure!(count >= 2, "{count} pods for twenty callers of one at a time");
        ensure!(count <= 12, "{count} pods, though scaling.max is 12");
    }
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_go_are_empty_when_they_go() -> Result<()> {
    let scene = Scene::new("drain").await?;
    let spec = |max: u32| {
        json!({
            "scaling": {"concurrencyLimit": 2, "min": 1, "max": max, "idleTimeout": "6s"},
            // Shorter than the calls: a pod that is told to end while it has one would cut it off.
            "podTemplate": {"spec": {"terminationGracePeriodSeconds": 4}},
        })
    };
    scene.ready("hello", spec(4)).await?;
    let long = try_join_all((0..6).map(|_| scene.get("hello", "/?sleep_ms=20000")));
    let lowered = async {
        asked_for(&scene, "hello", 3).await?;
        until("three pods with calls", PATIENCE, || async {
            Ok((scene.pods("hello").await?.iter().filter(|p| p.ready()).count() >= 3).then_some(()))
        })
        .await?;
        scene.apply("hello", spec(1)).await?;
        until("one pod to be left", PATIENCE, || async {
            let pods = scene.pods("hello").await?;
            Ok((pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()).count() == 1).then_some(()))
        })
        .await
    };
    let (answers, ()) = futures::try_join!(long, lowered)?;
    for answer in &answers {
        ensure!(answer.status == StatusCode::OK, "{} {}", answer.status, answer.text());
    }
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_count_that_somebody_sets_is_corrected_and_told() -> Result<()> {
    let scene = Scene::new("hand").await?;
    scene.ready("hello", json!({"scaling": {"min": 1, "max": 3, "idleTimeout": "2s"}})).await?;
    let scale = async |replicas: u32| {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        scene.deployments().patch_scale("hello-00001", &PatchParams::default(), &patch).await
    };
    scale(5).await?;
    until("the count to be corrected", PATIENCE, || async { Ok((desired(&scene, "hello").await? <= 3).then_some(())) })
        .await?;
    until("the event", PATIENCE, || async {
        let (_, said) = scene.kubectl(&["get", "events", "--namespace", &scene.namespace]).await?;
        Ok(said.contains("ScaleCorrected").then_some(()))
    })
    .await?;
    // By hand, for as long as that is what its owner wants.
    scene.apply("hello", json!({"scaling": {"min": 1, "max": 3, "idleTimeout": "2s", "paused": true}})).await?;
    scene.condition("hello", "Ready", "True").await?;
    until("the autoscaler to leave it alone", PATIENCE, || async {
        Ok(debug(&scene, "hello").await?.to_string().contains("scaling.paused").then_some(()))
    })
    .await?;
    scale(4).await?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        ensure!(desired(&scene, "hello").await? == 4, "a count that was set by hand was changed");
        sleep(Duration::from_millis(250)).await;
    }
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_keeps_pods() -> Result<()> {
    let scene = Scene::new("schedule").await?;
    // Every minute for two: it is on at any time.
    let schedules = json!([{"cron": "* * * * *", "timeZone": "Europe/Paris", "duration": "2m", "min": 2}]);
    scene.ready("hello", json!({"scaling": {"initial": 0, "idleTimeout": "1s", "schedules": schedules}})).await?;
    until("two pods", PATIENCE, || async {
        Ok((scene.pods("hello").await?.iter().filter(|p| p.ready()).count() == 2).then_some(()))
    })
    .await?;
    scene.apply("hello", json!({"scaling": {"initial": 0, "idleTimeout": "1s"}})).await?;
    scene.asleep("hello").await?;
    scene.done().await
}
