//! Scale to zero after the idle timeout, and not while there are requests.

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

use crate::test_env::TestEnv;

#[tokio::test(flavor = "multi_thread")]
async fn the_last_pod_is_removed_after_the_idle_timeout() -> Result<()> {
    let env = TestEnv::new("idle").await?;
    env.ready("hello", json!({"scaling": {"idleTimeout": "8s"}})).await?;
    assert_eq!(env.get("hello", "/").await?.status, StatusCode::OK);
    let last = Instant::now();
    let terminated = env.terminating("hello", Duration::from_secs(60)).await?;
    let after = terminated.duration_since(last).as_secs_f64();
    assert!(
        (6.0..=10.0).contains(&after),
        "the pod was terminated {after:.1} s after the last request, with an idleTimeout of 8 s"
    );
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_request_keeps_its_pod() -> Result<()> {
    let env = TestEnv::new("long").await?;
    env.ready("hello", json!({"scaling": {"idleTimeout": "3s"}})).await?;
    let response = env.get("hello", "/?sleep_ms=20000").await?;
    let end = Instant::now();
    assert_eq!(response.status, StatusCode::OK, "{}", response.text());
    assert!(response.took >= Duration::from_secs(20));
    // The pod was not terminated during the request.
    let pods = env.pods("hello").await?;
    assert!(pods.iter().any(|p| p.metadata.deletion_timestamp.is_none()), "the pod was terminated during a request");
    let terminated = env.terminating("hello", Duration::from_secs(60)).await?;
    let after = terminated.duration_since(end).as_secs_f64();
    assert!(
        (1.0..=5.0).contains(&after),
        "the pod was terminated {after:.1} s after the long request, with an idleTimeout of 3 s"
    );
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_longer_than_the_idle_timeout_keep_their_pods() -> Result<()> {
    let env = TestEnv::new("streams").await?;
    for name in ["events", "tunnel"] {
        env.ready(name, json!({"scaling": {"idleTimeout": "2s"}})).await?;
    }
    let started = Instant::now();
    let long = Duration::from_secs(8);
    let events = async {
        let path = "/sse?events=0&interval_ms=250";
        let response = env.http_client.send_streaming(Method::GET, &env.host("events"), path, Bytes::new()).await?;
        let mut body = response.into_body();
        while started.elapsed() < long {
            body.frame().await.context("the stream ended")??;
        }
        // The client disconnects during the stream.
        anyhow::Ok(())
    };
    // The tunnel is silent for that time and works afterwards. It bypasses the ingress, since Envoy allows upgrades to
    // WebSocket only.
    let direct = env.direct().await?;
    let tunnel = async {
        let mut stream = TcpStream::connect(direct.address).await?;
        let host = env.host("tunnel");
        let request = format!("GET /upgrade HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
        tokio::time::sleep_until(started + long).await;
        stream.write_all(b"still there?").await?;
        let mut echoed = [0; 12];
        stream.read_exact(&mut echoed).await?;
        ensure!(echoed == *b"still there?", "{}", String::from_utf8_lossy(&echoed));
        Ok(())
    };
    tokio::try_join!(events, tunnel)?;
    let end = Instant::now();
    for name in ["events", "tunnel"] {
        let terminated = env.terminating(name, Duration::from_secs(60)).await?;
        let after = terminated.duration_since(end).as_secs_f64();
        // A pod that was terminated before the end of the stream would be detected immediately.
        assert!(
            (1.0..=5.0).contains(&after),
            "{name}: the pod was terminated {after:.1} s after the stream, with an idleTimeout of 2 s"
        );
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_during_pod_termination_are_not_lost() -> Result<()> {
    let env = TestEnv::new("edge").await?;
    env.ready("hello", json!({"scaling": {"idleTimeout": "1s"}})).await?;
    // Intervals slightly above and below the idle timeout hit every phase of the pod's termination.
    for step in 0..24u64 {
        let response = env.get("hello", "/").await?;
        assert_eq!(response.status, StatusCode::OK, "request {step}: {}", response.text());
        tokio::time::sleep(Duration::from_millis(800 + 50 * step)).await;
    }
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn min_keeps_pods() -> Result<()> {
    let env = TestEnv::new("min").await?;
    env.ready("hello", json!({"scaling": {"min": 2, "idleTimeout": "1s"}})).await?;
    rouse_e2e::workspace::until("two ready pods", rouse_e2e::workspace::TIMEOUT, || async {
        Ok((env.pods("hello").await?.iter().filter(|p| p.ready()).count() == 2).then_some(()))
    })
    .await?;
    // With min 0, the Function scales to zero.
    env.apply("hello", json!({"scaling": {"min": 0, "idleTimeout": "1s"}})).await?;
    env.without_pods("hello").await?;
    assert_eq!(
        env.functions().get("hello").await?.status.unwrap_or_default().latest_revision.as_deref(),
        Some("hello-00001")
    );
    env.finish().await
}
