//! Back to zero, when nobody calls and not before.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn the_last_pod_goes_after_the_idle_timeout() -> Result<()> {
    let scene = Scene::new("idle").await?;
    scene.ready("hello", json!({"scaling": {"idleTimeout": "8s"}})).await?;
    assert_eq!(scene.get("hello", "/").await?.status, StatusCode::OK);
    let last = Instant::now();
    let gone = scene.terminating("hello", Duration::from_secs(60)).await?;
    let after = gone.duration_since(last).as_secs_f64();
    assert!((6.0..=10.0).contains(&after), "the pod went {after:.1} s after the last call, with an idleTimeout of 8 s");
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_request_keeps_its_pod() -> Result<()> {
    let scene = Scene::new("long").await?;
    scene.ready("hello", json!({"scaling": {"idleTimeout": "3s"}})).await?;
    let answer = scene.get("hello", "/?sleep_ms=20000").await?;
    let end = Instant::now();
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    assert!(answer.took >= Duration::from_secs(20));
    // The same pod still serves: it was not sent away underneath the request.
    let pods = scene.pods("hello").await?;
    assert!(pods.iter().any(|p| p.metadata.deletion_timestamp.is_none()), "the pod was leaving while it was busy");
    let gone = scene.terminating("hello", Duration::from_secs(60)).await?;
    let after = gone.duration_since(end).as_secs_f64();
    assert!((1.0..=5.0).contains(&after), "the pod went {after:.1} s after the long call, with an idleTimeout of 3 s");
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_longer_than_the_idle_timeout_keep_their_pods() -> Result<()> {
    let scene = Scene::new("streams").await?;
    for name in ["events", "tunnel"] {
        scene.ready(name, json!({"scaling": {"idleTimeout": "2s"}})).await?;
    }
    let begun = Instant::now();
    let long = Duration::from_secs(8);
    let events = async {
        let path = "/sse?events=0&interval_ms=250";
        let response = scene.caller.begin(Method::GET, &scene.host("events"), path, Bytes::new()).await?;
        let mut body = response.into_body();
        while begun.elapsed() < long {
            body.frame().await.context("the events ended")??;
        }
        // The client leaves in the middle of them.
        anyhow::Ok(())
    };
    // Not a byte goes through the tunnel for all that time, and then it still carries. It does not pass the ingress: Envoy
    // knows of no other protocol than WebSocket.
    let direct = scene.direct().await?;
    let tunnel = async {
        let mut stream = TcpStream::connect(direct.address).await?;
        let host = scene.host("tunnel");
        let request = format!("GET /upgrade HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        tokio::time::sleep_until(begun + long).await;
        stream.write_all(b"still there?").await?;
        let mut echoed = [0; 12];
        stream.read_exact(&mut echoed).await?;
        ensure!(echoed == *b"still there?", "{}", String::from_utf8_lossy(&echoed));
        Ok(())
    };
    tokio::try_join!(events, tunnel)?;
    let end = Instant::now();
    for name in ["events", "tunnel"] {
        let gone = scene.terminating(name, Duration::from_secs(60)).await?;
        let after = gone.duration_since(end).as_secs_f64();
        // A pod that had gone before the end would be seen as gone at once.
        assert!(
            (1.0..=5.0).contains(&after),
            "{name}: the pod went {after:.1} s after the stream, with an idleTimeout of 2 s"
        );
    }
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_while_the_pod_goes_are_not_lost() -> Result<()> {
    let scene = Scene::new("edge").await?;
    scene.ready("hello", json!({"scaling": {"idleTimeout": "1s"}})).await?;
    // Calls a little more and a little less than the idle time-out apart meet the pod at every moment of its going.
    for step in 0..24u64 {
        let answer = scene.get("hello", "/").await?;
        assert_eq!(answer.status, StatusCode::OK, "call {step}: {}", answer.text());
        tokio::time::sleep(Duration::from_millis(800 + 50 * step)).await;
    }
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn min_keeps_pods() -> Result<()> {
    let scene = Scene::new("min").await?;
    scene.ready("hello", json!({"scaling": {"min": 2, "idleTimeout": "1s"}})).await?;
    rouse_e2e::world::until("two ready pods", rouse_e2e::world::PATIENCE, || async {
        Ok((scene.pods("hello").await?.iter().filter(|p| p.ready()).count() == 2).then_some(()))
    })
    .await?;
    // Lowered, it goes to zero.
    scene.apply("hello", json!({"scaling": {"min": 0, "idleTimeout": "1s"}})).await?;
    scene.zero("hello").await?;
    assert_eq!(
        scene.functions().get("hello").await?.status.unwrap_or_default().latest_revision.as_deref(),
        Some("hello-00001")
    );
    scene.done().await
}
