//! Changes under load: two hundred calls a second all the while, and none of them fails that the user's own pod did not
//! fail.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use parking_lot::Mutex;
use rouse_crds::function::{FunctionStatus, RolloutPhase};
use rouse_e2e::world::{PATIENCE, until};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{load::Load, scene::Scene};

const RATE: u32 = 200;

/// A spec whose container greets with this word, with more variables and fields.
fn spec(greeting: &str, env: &Value, more: Value) -> Value {
    let mut variables = vec![json!({"name": "HELLO_GREETING", "value": greeting})];
    variables.extend(env.as_array().into_iter().flatten().cloned());
    let mut spec = json!({"env": variables, "scaling": {"idleTimeout": "10s"}});
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    spec
}

async fn status(scene: &Scene) -> Result<FunctionStatus> {
    Ok(scene.functions().get("hello").await?.status.unwrap_or_default())
}

/// Waits until all calls go to this revision alone.
async fn all_at(scene: &Scene, revision: &str) -> Result<()> {
    until(&format!("all calls to go to {revision}"), PATIENCE, || async {
        let traffic = status(scene).await?.traffic;
        Ok((traffic.iter().all(|t| t.revision == revision || t.percent == 0)).then_some(()))
    })
    .await
}

/// Waits until a share of the calls goes to this revision.
async fn some_at(scene: &Scene, revision: &str) -> Result<()> {
    until(&format!("some calls to go to {revision}"), PATIENCE, || async {
        let traffic = status(scene).await?.traffic;
        Ok(traffic.iter().any(|t| t.revision == revision && t.percent > 0).then_some(()))
    })
    .await
}

async fn gone_back(scene: &Scene, revision: &str) -> Result<String> {
    let message = until("the roll-out to be ended", PATIENCE, || async {
        let rollout = status(scene).await?.rollout;
        Ok(rollout.filter(|r| r.phase == RolloutPhase::Aborted).map(|r| r.message.unwrap_or_default()))
    })
    .await?;
    all_at(scene, revision).await?;
    Ok(message)
}

/// In steps of a few seconds.
fn steps(abort_on: &Value) -> Value {
    let mut rollout = json!({"steps": [10, 50], "interval": "4s"});
    if !abort_on.is_null() {
        rollout["abortOn"] = abort_on.clone();
    }
    json!({"rollout": rollout})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_image_takes_over_in_steps() -> Result<()> {
    let scene = Scene::new("steps").await?;
    let abort = json!({"errorRate": "5%", "p99": "5s"});
    scene.ready("hello", spec("one", &json!([]), steps(&abort))).await?;
    let load = Load::begin(&scene.world, "hello", RATE, "/");
    scene.apply("hello", spec("two", &json!([]), steps(&abort))).await?;
    let shares = Mutex::new(vec![]);
    until("the new revision to have all calls", PATIENCE, || async {
        let status = status(&scene).await?;
        let share = status.traffic.iter().filter(|t| t.revision == "hello-00002").map(|t| t.percent).sum::<i32>();
        let mut shares = shares.lock();
        if shares.last() != Some(&share) {
            shares.push(share);
        }
        Ok((share == 100).then_some(()))
    })
    .await?;
    let (calls, shares) = (load.end_well().await?, shares.into_inner());
    ensure!(shares.ends_with(&[10, 50, 100]), "its shares were {shares:?}");
    ensure!(calls.greetings.get("two").is_some_and(|n| *n > 20), "{calls:?}");
    // What there was is to be read.
    let status = status(&scene).await?;
    let names: Vec<_> = status.revisions.iter().map(|r| r.name.as_str()).collect();
    ensure!(names == ["hello-00002", "hello-00001"], "{names:?}");
    ensure!(status.revisions[0].percent == 100 && status.rollout.is_none(), "{status:?}");
    let list = ["get", "controllerrevisions", "-l", "rouse.dev/function=hello", "--namespace", &scene.namespace];
    let (listed, said) = scene.kubectl(&list).await?;
    ensure!(listed && said.contains("hello-00001") && said.contains("hello-00002"), "{said}");
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_crashes_never_gets_a_call() -> Result<()> {
    let scene = Scene::new("crash").await?;
    scene.ready("hello", spec("one", &json!([]), json!({}))).await?;
    let load = Load::begin(&scene.world, "hello", RATE, "/");
    scene.apply("hello", spec("two", &json!([{"name": "HELLO_EXIT_AT_START", "value": "3"}]), json!({}))).await?;
    let (_, message) = scene.condition("hello", "RevisionReady", "False").await?;
    ensure!(message.contains("exited with status 3"), "{message}");
    let calls = load.end_well().await?;
    ensure!(!calls.greetings.contains_key("two"), "{calls:?}");
    all_at(&scene, "hello-00001").await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_never_ready_never_gets_a_call() -> Result<()> {
    let scene = Scene::new("deaf").await?;
    let short = json!({"timeouts": {"coldStart": "8s"}});
    scene.ready("hello", spec("one", &json!([]), short.clone())).await?;
    let load = Load::begin(&scene.world, "hello", RATE, "/");
    scene.apply("hello", spec("two", &json!([{"name": "HELLO_NEVER_LISTEN", "value": "1"}]), short)).await?;
    let (reason, _) = scene.condition("hello", "RevisionReady", "False").await?;
    ensure!(reason == "ReadinessTimeout", "{reason}");
    load.end_well().await?;
    all_at(&scene, "hello-00001").await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_answers_with_errors_is_taken_back() -> Result<()> {
    let scene = Scene::new("errors").await?;
    let abort = json!({"errorRate": "5%"});
    scene.ready("hello", spec("one", &json!([]), steps(&abort))).await?;
    let load = Load::begin(&scene.world, "hello", RATE, "/");
    scene.apply("hello", spec("two", &json!([{"name": "HELLO_STATUS", "value": "500"}]), steps(&abort))).await?;
    let message = gone_back(&scene, "hello-00001").await?;
    ensure!(message.contains('%'), "the message has no figures: {message}");
    let (_, said) = scene.condition("hello", "Ready", "False").await?;
    ensure!(said.contains("hello-00002"), "{said}");
    let (_, events) = scene.kubectl(&["get", "events", "--namespace", &scene.namespace]).await?;
    ensure!(events.contains("RolloutAborted"), "{events}");
    let calls = load.end().await?;
    // Nothing failed but what the new pod itself answered with 500, and it was a small share.
    let by_rouse: Vec<_> = calls.failures.iter().filter(|f| !f.starts_with("500 ") || !f.contains("two")).collect();
    ensure!(by_rouse.is_empty(), "{} of {} failed by Rouse, first {}", by_rouse.len(), calls.count, by_rouse[0]);
    ensure!(!calls.failures.is_empty() && calls.failures.len() * 5 < calls.count as usize, "{calls:?}");
    // It stays so, and what comes next is rolled out as ever.
    scene.apply("hello", spec("three", &json!([]), steps(&abort))).await?;
    all_at(&scene, "hello-00003").await?;
    scene.condition("hello", "Ready", "True").await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_slow_is_taken_back() -> Result<()> {
    let scene = Scene::new("slow").await?;
    let abort = json!({"p99": "800ms"});
    scene.ready("hello", spec("one", &json!([]), steps(&abort))).await?;
    let load = Load::begin(&scene.world, "hello", 50, "/");
    scene.apply("hello", spec("two", &json!([{"name": "HELLO_SLEEP_MS", "value": "1500"}]), steps(&abort))).await?;
    let message = gone_back(&scene, "hello-00001").await?;
    ensure!(message.contains("p99"), "{message}");
    load.end_well().await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn back_in_the_middle_of_a_rollout() -> Result<()> {
    let scene = Scene::new("back").await?;
    let slow = json!({"rollout": {"steps": [10, 50], "interval": "5m"}});
    scene.ready("hello", spec("one", &json!([]), slow.clone())).await?;
    let load = Load::begin(&scene.world, "hello", RATE, "/");
    scene.apply("hello", spec("two", &json!([]), slow.clone())).await?;
    some_at(&scene, "hello-00002").await?;
    let mut pinned = spec("two", &json!([]), slow);
    pinned["traffic"] = json!([{"revision": "hello-00001", "percent": 100}]);
    scene.apply("hello", pinned).await?;
    all_at(&scene, "hello-00001").await?;
    let named = Instant::now();
    let before = load.so_far().greetings.get("two").copied().unwrap_or(0);
    until("some more calls", PATIENCE, || async {
        Ok((load.so_far().greetings.get("one").is_some_and(|n| *n > 100) && named.elapsed() > Duration::from_secs(2))
            .then_some(()))
    })
    .await?;
    let calls = load.end_well().await?;
    let after = calls.greetings.get("two").copied().unwrap_or(0);
    // Those that were under way when it was named.
    ensure!(after - before <= 20, "{} calls went to the new revision after the old one was named", after - before);
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_quick_edits() -> Result<()> {
    let scene = Scene::new("edits").await?;
    scene.ready("hello", spec("one", &json!([]), json!({}))).await?;
    let load = Load::begin(&scene.world, "hello", RATE, "/");
    for greeting in ["two", "three", "four"] {
        scene.apply("hello", spec(greeting, &json!([]), json!({}))).await?;
    }
    until("the last one to answer", PATIENCE, || async {
        Ok(scene.get("hello", "/").await?.text().starts_with("four").then_some(()))
    })
    .await?;
    load.end_well().await?;
    let latest = status(&scene).await?.latest_revision.context("no latest revision")?;
    all_at(&scene, &latest).await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_at_zero_starts_nothing_and_loses_nothing() -> Result<()> {
    let scene = Scene::new("zero").await?;
    let lazy = json!({"scaling": {"initial": 0, "idleTimeout": "2s"}});
    scene.ready("hello", spec("one", &json!([]), lazy.clone())).await?;
    ensure!(scene.get("hello", "/").await?.text().starts_with("one"));
    scene.asleep("hello").await?;
    scene.apply("hello", spec("two", &json!([]), lazy)).await?;
    all_at(&scene, "hello-00002").await?;
    ensure!(scene.pods("hello").await?.is_empty(), "a change of a function at zero started a pod");
    let load = Load::begin(&scene.world, "hello", RATE, "/");
    until("calls to be answered", PATIENCE, || async { Ok((load.so_far().count > 100).then_some(())) }).await?;
    let calls = load.end_well().await?;
    ensure!(calls.greetings.keys().eq(["two"]), "{:?}", calls.greetings);
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_while_pods_go() -> Result<()> {
    let scene = Scene::new("going").await?;
    let many = |min: u32| json!({"scaling": {"min": min, "max": 4, "idleTimeout": "5s"}});
    scene.ready("hello", spec("one", &json!([]), many(4))).await?;
    until("four pods", PATIENCE, || async {
        Ok((scene.pods("hello").await?.iter().filter(|p| p.ready()).count() == 4).then_some(()))
    })
    .await?;
    let load = Load::begin(&scene.world, "hello", RATE, "/?sleep_ms=50");
    scene.apply("hello", spec("one", &json!([]), many(1))).await?;
    until("pods to go", PATIENCE, || async {
        Ok(scene.pods("hello").await?.iter().any(|p| p.metadata.deletion_timestamp.is_some()).then_some(()))
    })
    .await?;
    scene.apply("hello", spec("two", &json!([]), many(1))).await?;
    all_at(&scene, "hello-00002").await?;
    until("the former pods to go", PATIENCE, || async {
        Ok(scene.pods("hello").await?.iter().all(|p| p.revision() == Some("hello-00002")).then_some(()))
    })
    .await?;
    load.end_well().await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_split_tagged_kept_and_copied() -> Result<()> {
    let scene = Scene::new("split").await?;
    scene.ready("hello", spec("one", &json!([]), json!({}))).await?;
    scene.apply("hello", spec("two", &json!([]), json!({}))).await?;
    all_at(&scene, "hello-00002").await?;
    let split = json!({
        "traffic": [
            {"revision": "hello-00001", "percent": 80},
            {"latest": true, "percent": 20},
            {"revision": "hello-00001", "tag": "old"},
            {"latest": true, "tag": "next"},
        ],
        "rollout": {"affinity": {"cookie": "seen"}},
        "scaling": {"idleTimeout": "3s"},
    });
    scene.apply("hello", spec("two", &json!([]), split)).await?;
    some_at(&scene, "hello-00001").await?;
    let load = Load::begin(&scene.world, "hello", 100, "/");
    until("some hundred calls", PATIENCE, || async { Ok((load.so_far().count >= 600).then_some(())) }).await?;
    let calls = load.end_well().await?;
    let two = calls.greetings.get("two").copied().unwrap_or(0) as f64 / f64::from(calls.count);
    ensure!((0.1..0.3).contains(&two), "{two} of the calls went to a share of a fifth");
    // Each tag has its host, also from zero.
    scene.asleep("hello").await?;
    for (tag, greeting) in [("old", "one"), ("next", "two")] {
        let host = scene.host(&format!("{tag}-hello"));
        let answer = scene.caller.get(&host, "/").await?;
        ensure!(answer.status == StatusCode::OK && answer.text().starts_with(greeting), "{tag}: {}", answer.text());
    }
    // A caller with a cookie stays.
    let first = scene.get("hello", "/").await?;
    let cookie = first.header("set-cookie").context("no cookie was set")?.split(';').next().unwrap_or("").to_owned();
    for _ in 0..30 {
        let request = http::Request::get(format!("http://{}/", scene.caller.address()))
            .header("host", scene.host("hello"))
            .header("cookie", &cookie);
        let again = scene.caller.request(request).await?;
        ensure!(
            again.text().split(' ').next() == first.text().split(' ').next(),
            "{} then {}",
            first.text(),
            again.text()
        );
    }
    // Every call is copied to the other revision, whose answers nobody gets.
    let mirror = json!({
        "traffic": [{"revision": "hello-00001", "percent": 100}, {"latest": true, "tag": "next"}],
        "mirror": {"tag": "next"},
    });
    scene.apply("hello", spec("two", &json!([]), mirror)).await?;
    all_at(&scene, "hello-00001").await?;
    let next = scene.host("next-hello");
    let seen = async || -> Result<u64> {
        let stats = scene.caller.get(&next, "/stats").await?.json();
        stats["requests"].as_u64().with_context(|| format!("no count in {stats}"))
    };
    let before = seen().await?;
    for _ in 0..20 {
        let answer = scene.get("hello", "/").await?;
        ensure!(answer.status == StatusCode::OK && answer.text().starts_with("one"), "{}", answer.text());
    }
    until("the copies to arrive", PATIENCE, || async { Ok((seen().await? >= before + 20).then_some(())) }).await?;
    scene.done().await
}
