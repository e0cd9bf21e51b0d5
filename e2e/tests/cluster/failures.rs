//! Functions that do not start: what the caller gets, what the Function says, and that it is not tried in a hot loop.

use std::time::Duration;

use anyhow::Result;
use http::StatusCode;
use rouse_e2e::caller::Answer;
use serde_json::json;

use crate::scene::Scene;

fn assert_problem(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().is_some_and(|t| t.starts_with("https://rouse.dev/problems/")), "{problem}");
    assert_eq!(problem["reason"], reason, "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_exist() -> Result<()> {
    let scene = Scene::new("image").await?;
    scene.ready("other", json!({"scaling": {"initial": 0}})).await?;
    let spec = json!({"image": "localhost/no-such-image:1", "scaling": {"idleTimeout": "3s"}, "timeouts": {"coldStart": "110s"}});
    scene.apply("broken", spec).await?;
    let (reason, message) = scene.condition("broken", "RevisionReady", "False").await?;
    assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}: {message}");
    scene.condition("broken", "Ready", "False").await?;
    scene.zero("broken").await?;

    // A call tries again, and is told as soon as the kubelet knows.
    let answer = scene.get("broken", "/").await?;
    let reason = answer.json()["reason"].as_str().unwrap_or_default().to_owned();
    assert!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{}", answer.text());
    assert_problem(&answer, 503, &reason);
    assert!(answer.took < Duration::from_secs(60), "told after {:?}, with a coldStart of 110 s", answer.took);
    // The one after it is told at once and starts nothing.
    let answer = scene.get("broken", "/").await?;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok()), "{:?}", answer.headers);
    assert!(answer.took < Duration::from_secs(5), "{:?}", answer.took);
    scene.zero("broken").await?;

    // Mended, it serves.
    scene.ready("broken", json!({"scaling": {"idleTimeout": "3s"}})).await?;
    assert_eq!(scene.get("broken", "/").await?.status, StatusCode::OK);
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_exits_at_once() -> Result<()> {
    let scene = Scene::new("exit").await?;
    let spec =
        json!({"env": [{"name": "HELLO_EXIT_AT_START", "value": "3"}], "scaling": {"initial": 0, "idleTimeout": "3s"}});
    scene.ready("crash", spec).await?;
    let answer = scene.get("crash", "/").await?;
    let reason = answer.json()["reason"].as_str().unwrap_or_default().to_owned();
    assert!(["Error", "CrashLoopBackOff"].contains(&reason.as_str()), "{}", answer.text());
    assert_problem(&answer, 503, &reason);
    assert!(answer.text().contains("exited with status 3"), "{}", answer.text());
    assert!(answer.took < Duration::from_secs(30), "{:?}", answer.took);
    let (_, message) = scene.condition("crash", "RevisionReady", "False").await?;
    assert!(message.contains("exited with status 3"), "{message}");
    scene.zero("crash").await?;
    // What went wrong is still to be read at zero.
    let (_, message) = scene.condition("crash", "RevisionReady", "False").await?;
    assert!(message.contains("exited with status 3"), "{message}");
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_never_listens() -> Result<()> {
    let scene = Scene::new("listen").await?;
    let spec = json!({
        "env": [{"name": "HELLO_NEVER_LISTEN", "value": "1"}],
        "scaling": {"initial": 0, "idleTimeout": "3s"}, "timeouts": {"coldStart": "6s"},
    });
    scene.ready("deaf", spec).await?;
    let answer = scene.get("deaf", "/").await?;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT, "{}", answer.text());
    assert!(answer.took >= Duration::from_secs(5) && answer.took < Duration::from_secs(20), "{:?}", answer.took);
    let (reason, _) = scene.condition("deaf", "RevisionReady", "False").await?;
    assert_eq!(reason, "NeverListened");
    scene.zero("deaf").await?;
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host() -> Result<()> {
    let scene = Scene::new("host").await?;
    scene.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let unknown = |n: u32| scene.host(&format!("nobody-{n}"));
    for n in 0..5 {
        let answer = scene.caller.get(&unknown(n), "/").await?;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    for text in scene.of_activators("/metrics").await? {
        assert!(!text.contains("nobody"), "a host that nobody has became a label");
    }
    scene.done().await
}
