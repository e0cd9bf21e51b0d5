//! Rollouts under a load of 200 requests per second. No request fails except those that the Function itself fails.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use parking_lot::Mutex;
use rouse_crds::function::{FunctionStatus, RolloutPhase};
use rouse_e2e::workspace::{TIMEOUT, until};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{load::Load, test_env::TestEnv};

const RATE: u32 = 200;

/// A spec whose container responds with this greeting, with additional variables and fields.
fn spec(greeting: &str, env: &Value, more: Value) -> Value {
    let mut variables = vec![json!({"name": "HELLO_GREETING", "value": greeting})];
    variables.extend(env.as_array().into_iter().flatten().cloned());
    let mut spec = json!({"env": variables, "scaling": {"idleTimeout": "10s"}});
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    spec
}

async fn status(env: &TestEnv) -> Result<FunctionStatus> {
    Ok(env.functions().get("hello").await?.status.unwrap_or_default())
}

/// Waits until a revision has all traffic.
async fn until_all_traffic_at(env: &TestEnv, revision: &str) -> Result<()> {
    until(&format!("all traffic at {revision}"), TIMEOUT, || async {
        let traffic = status(env).await?.traffic;
        Ok((traffic.iter().all(|t| t.revision == revision || t.percent == 0)).then_some(()))
    })
    .await
}

/// Waits until a revision has traffic.
async fn until_traffic_at(env: &TestEnv, revision: &str) -> Result<()> {
    until(&format!("traffic at {revision}"), TIMEOUT, || async {
        let traffic = status(env).await?.traffic;
        Ok(traffic.iter().any(|t| t.revision == revision && t.percent > 0).then_some(()))
    })
    .await
}

async fn until_rolled_back(env: &TestEnv, revision: &str) -> Result<String> {
    let message = until("the abort of the rollout", TIMEOUT, || async {
        let rollout = status(env).await?.rollout;
        Ok(rollout.filter(|r| r.phase == RolloutPhase::Aborted).map(|r| r.message.unwrap_or_default()))
    })
    .await?;
    until_all_traffic_at(env, revision).await?;
    Ok(message)
}

/// Rollout in steps of 4 s.
fn steps(abort_on: &Value) -> Value {
    let mut rollout = json!({"steps": [10, 50], "interval": "4s"});
    if !abort_on.is_null() {
        rollout["abortOn"] = abort_on.clone();
    }
    json!({"rollout": rollout})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_image_is_rolled_out_in_steps() -> Result<()> {
    let env = TestEnv::new("steps").await?;
    let abort = json!({"errorRate": "5%", "p99": "5s"});
    env.ready("hello", spec("one", &json!([]), steps(&abort))).await?;
    let load = Load::start(&env.workspace, "hello", RATE, "/");
    env.apply("hello", spec("two", &json!([]), steps(&abort))).await?;
    let percents = Mutex::new(vec![]);
    until("all traffic at the new revision", TIMEOUT, || async {
        let status = status(&env).await?;
        let percent = status.traffic.iter().filter(|t| t.revision == "hello-00002").map(|t| t.percent).sum::<i32>();
        let mut percents = percents.lock();
        if percents.last() != Some(&percent) {
            percents.push(percent);
        }
        Ok((percent == 100).then_some(()))
    })
    .await?;
    let (requests, percents) = (load.stop_without_failures().await?, percents.into_inner());
    ensure!(percents.ends_with(&[10, 50, 100]), "its traffic percentages were {percents:?}");
    ensure!(requests.greetings.get("two").is_some_and(|n| *n > 20), "{requests:?}");
    // The former revisions are listed.
    let status = status(&env).await?;
    let names: Vec<_> = status.revisions.iter().map(|r| r.name.as_str()).collect();
    ensure!(names == ["hello-00002", "hello-00001"], "{names:?}");
    ensure!(status.revisions[0].percent == 100 && status.rollout.is_none(), "{status:?}");
    let list = ["get", "controllerrevisions", "-l", "rouse.dev/function=hello", "--namespace", &env.namespace];
    let (listed, printed) = env.kubectl(&list).await?;
    ensure!(listed && printed.contains("hello-00001") && printed.contains("hello-00002"), "{printed}");
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_crashes_receives_no_traffic() -> Result<()> {
    let env = TestEnv::new("crash").await?;
    env.ready("hello", spec("one", &json!([]), json!({}))).await?;
    let load = Load::start(&env.workspace, "hello", RATE, "/");
    env.apply("hello", spec("two", &json!([{"name": "HELLO_EXIT_AT_START", "value": "3"}]), json!({}))).await?;
    let (_, message) = env.condition("hello", "RevisionReady", "False").await?;
    ensure!(message.contains("exited with status 3"), "{message}");
    let requests = load.stop_without_failures().await?;
    ensure!(!requests.greetings.contains_key("two"), "{requests:?}");
    until_all_traffic_at(&env, "hello-00001").await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_never_ready_receives_no_traffic() -> Result<()> {
    let env = TestEnv::new("deaf").await?;
    let short = json!({"timeouts": {"coldStart": "8s"}});
    env.ready("hello", spec("one", &json!([]), short.clone())).await?;
    let load = Load::start(&env.workspace, "hello", RATE, "/");
    env.apply("hello", spec("two", &json!([{"name": "HELLO_NEVER_LISTEN", "value": "1"}]), short)).await?;
    let (reason, _) = env.condition("hello", "RevisionReady", "False").await?;
    ensure!(reason == "ReadinessTimeout", "{reason}");
    load.stop_without_failures().await?;
    until_all_traffic_at(&env, "hello-00001").await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_responds_with_errors_is_rolled_back() -> Result<()> {
    let env = TestEnv::new("errors").await?;
    let abort = json!({"errorRate": "5%"});
    env.ready("hello", spec("one", &json!([]), steps(&abort))).await?;
    let load = Load::start(&env.workspace, "hello", RATE, "/");
    env.apply("hello", spec("two", &json!([{"name": "HELLO_STATUS", "value": "500"}]), steps(&abort))).await?;
    let message = until_rolled_back(&env, "hello-00001").await?;
    ensure!(message.contains('%'), "the message has no percentage: {message}");
    let (_, printed) = env.condition("hello", "Ready", "False").await?;
    ensure!(printed.contains("hello-00002"), "{printed}");
    let (_, events) = env.kubectl(&["get", "events", "--namespace", &env.namespace]).await?;
    ensure!(events.contains("RolloutAborted"), "{events}");
    let requests = load.stop().await?;
    // Only the responses of the new pod failed, and they were a small part.
    let by_rouse: Vec<_> = requests.failures.iter().filter(|f| !f.starts_with("500 ") || !f.contains("two")).collect();
    ensure!(by_rouse.is_empty(), "{} of {} failed by Rouse, first {}", by_rouse.len(), requests.count, by_rouse[0]);
    ensure!(!requests.failures.is_empty() && requests.failures.len() * 5 < requests.count as usize, "{requests:?}");
    // The next revision is rolled out normally.
    env.apply("hello", spec("three", &json!([]), steps(&abort))).await?;
    until_all_traffic_at(&env, "hello-00003").await?;
    env.condition("hello", "Ready", "True").await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_image_is_rolled_back() -> Result<()> {
    let env = TestEnv::new("slow").await?;
    let abort = json!({"p99": "800ms"});
    env.ready("hello", spec("one", &json!([]), steps(&abort))).await?;
    let load = Load::start(&env.workspace, "hello", 50, "/");
    env.apply("hello", spec("two", &json!([{"name": "HELLO_SLEEP_MS", "value": "1500"}]), steps(&abort))).await?;
    let message = until_rolled_back(&env, "hello-00001").await?;
    ensure!(message.contains("p99"), "{message}");
    load.stop_without_failures().await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_during_a_rollout() -> Result<()> {
    let env = TestEnv::new("back").await?;
    let slow = json!({"rollout": {"steps": [10, 50], "interval": "5m"}});
    env.ready("hello", spec("one", &json!([]), slow.clone())).await?;
    let load = Load::start(&env.workspace, "hello", RATE, "/");
    env.apply("hello", spec("two", &json!([]), slow.clone())).await?;
    until_traffic_at(&env, "hello-00002").await?;
    let mut pinned = spec("two", &json!([]), slow);
    pinned["traffic"] = json!([{"revision": "hello-00001", "percent": 100}]);
    env.apply("hello", pinned).await?;
    until_all_traffic_at(&env, "hello-00001").await?;
    let named = Instant::now();
    let before = load.stats().greetings.get("two").copied().unwrap_or(0);
    until("more requests", TIMEOUT, || async {
        Ok((load.stats().greetings.get("one").is_some_and(|n| *n > 100) && named.elapsed() > Duration::from_secs(2))
            .then_some(()))
    })
    .await?;
    let requests = load.stop_without_failures().await?;
    let after = requests.greetings.get("two").copied().unwrap_or(0);
    // Requests that were in flight at that time.
    ensure!(after - before <= 20, "{} requests went to the new revision after the old one was named", after - before);
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_edits_in_a_row_lose_no_request() -> Result<()> {
    let env = TestEnv::new("edits").await?;
    env.ready("hello", spec("one", &json!([]), json!({}))).await?;
    let load = Load::start(&env.workspace, "hello", RATE, "/");
    for greeting in ["two", "three", "four"] {
        env.apply("hello", spec(greeting, &json!([]), json!({}))).await?;
    }
    until("a response of the last revision", TIMEOUT, || async {
        Ok(env.get("hello", "/").await?.text().starts_with("four").then_some(()))
    })
    .await?;
    load.stop_without_failures().await?;
    let latest = status(&env).await?.latest_revision.context("no latest revision")?;
    until_all_traffic_at(&env, &latest).await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_at_zero_starts_no_pod_and_loses_no_request() -> Result<()> {
    let env = TestEnv::new("zero").await?;
    let lazy = json!({"scaling": {"initial": 0, "idleTimeout": "2s"}});
    env.ready("hello", spec("one", &json!([]), lazy.clone())).await?;
    ensure!(env.get("hello", "/").await?.text().starts_with("one"));
    env.scaled_to_zero("hello").await?;
    env.apply("hello", spec("two", &json!([]), lazy)).await?;
    until_all_traffic_at(&env, "hello-00002").await?;
    ensure!(env.pods("hello").await?.is_empty(), "a change of a function at zero started a pod");
    let load = Load::start(&env.workspace, "hello", RATE, "/");
    until("responses", TIMEOUT, || async { Ok((load.stats().count > 100).then_some(())) }).await?;
    let requests = load.stop_without_failures().await?;
    ensure!(requests.greetings.keys().eq(["two"]), "{:?}", requests.greetings);
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_during_a_scale_down_loses_no_request() -> Result<()> {
    let env = TestEnv::new("going").await?;
    let many = |min: u32| json!({"scaling": {"min": min, "max": 4, "idleTimeout": "5s"}});
    env.ready("hello", spec("one", &json!([]), many(4))).await?;
    until("four pods", TIMEOUT, || async {
        Ok((env.pods("hello").await?.iter().filter(|p| p.ready()).count() == 4).then_some(()))
    })
    .await?;
    let load = Load::start(&env.workspace, "hello", RATE, "/?sleep_ms=50");
    env.apply("hello", spec("one", &json!([]), many(1))).await?;
    until("terminating pods", TIMEOUT, || async {
        Ok(env.pods("hello").await?.iter().any(|p| p.metadata.deletion_timestamp.is_some()).then_some(()))
    })
    .await?;
    env.apply("hello", spec("two", &json!([]), many(1))).await?;
    until_all_traffic_at(&env, "hello-00002").await?;
    until("the former terminating pods", TIMEOUT, || async {
        Ok(env.pods("hello").await?.iter().all(|p| p.revision() == Some("hello-00002")).then_some(()))
    })
    .await?;
    load.stop_without_failures().await?;
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_split_tags_session_affinity_and_mirroring() -> Result<()> {
    let env = TestEnv::new("split").await?;
    env.ready("hello", spec("one", &json!([]), json!({}))).await?;
    env.apply("hello", spec("two", &json!([]), json!({}))).await?;
    until_all_traffic_at(&env, "hello-00002").await?;
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
    env.apply("hello", spec("two", &json!([]), split)).await?;
    until_traffic_at(&env, "hello-00001").await?;
    let load = Load::start(&env.workspace, "hello", 100, "/");
    until("600 requests", TIMEOUT, || async { Ok((load.stats().count >= 600).then_some(())) }).await?;
    let requests = load.stop_without_failures().await?;
    let two = requests.greetings.get("two").copied().unwrap_or(0) as f64 / f64::from(requests.count);
    ensure!((0.1..0.3).contains(&two), "{two} of the requests went to a revision with 20 %");
    // Each tag has a host, which wakes from zero.
    env.scaled_to_zero("hello").await?;
    for (tag, greeting) in [("old", "one"), ("next", "two")] {
        let host = env.host(&format!("{tag}-hello"));
        let response = env.http_client.get(&host, "/").await?;
        ensure!(
            response.status == StatusCode::OK && response.text().starts_with(greeting),
            "{tag}: {}",
            response.text()
        );
    }
    // Session affinity: a client with the cookie stays on its revision.
    let first = env.get("hello", "/").await?;
    let cookie = first.header("set-cookie").context("no cookie was set")?.split(';').next().unwrap_or("").to_owned();
    for _ in 0..30 {
        let request = http::Request::get(format!("http://{}/", env.http_client.address()))
            .header("host", env.host("hello"))
            .header("cookie", &cookie);
        let again = env.http_client.request(request).await?;
        ensure!(
            again.text().split(' ').next() == first.text().split(' ').next(),
            "{} then {}",
            first.text(),
            again.text()
        );
    }
    // Every request is mirrored to the other revision, whose responses are discarded.
    let mirror = json!({
        "traffic": [{"revision": "hello-00001", "percent": 100}, {"latest": true, "tag": "next"}],
        "mirror": {"tag": "next"},
    });
    env.apply("hello", spec("two", &json!([]), mirror)).await?;
    until_all_traffic_at(&env, "hello-00001").await?;
    let next = env.host("next-hello");
    let seen = async || -> Result<u64> {
        let stats = env.http_client.get(&next, "/stats").await?.json();
        stats["requests"].as_u64().with_context(|| format!("no count in {stats}"))
    };
    let before = seen().await?;
    for _ in 0..20 {
        let response = env.get("hello", "/").await?;
        ensure!(response.status == StatusCode::OK && response.text().starts_with("one"), "{}", response.text());
    }
    until("the mirrored requests", TIMEOUT, || async { Ok((seen().await? >= before + 20).then_some(())) }).await?;
    env.finish().await
}
