//! Streaming of request and response bodies.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::time::Instant;

use crate::test_env::TestEnv;

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_streamed() -> Result<()> {
    let env = TestEnv::new("stream").await?;
    env.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let response = env
        .http_client
        .send_streaming(Method::GET, &env.host("hello"), "/stream?chunks=5&interval_ms=400", Bytes::new())
        .await?;
    assert_eq!(response.status(), StatusCode::OK);
    let first = Instant::now();
    let mut body = response.into_body();
    let mut arrivals = vec![];
    while let Some(frame) = body.frame().await {
        if frame?.into_data().is_ok_and(|d| !d.is_empty()) {
            arrivals.push(first.elapsed());
        }
    }
    let spread = *arrivals.last().context("no data arrived")?;
    assert!(arrivals.len() >= 5, "{} of 5 chunks", arrivals.len());
    assert!(spread >= Duration::from_millis(1200), "five chunks 400 ms apart arrived within {spread:?}");
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_complete_through_a_cold_start() -> Result<()> {
    let env = TestEnv::new("upload").await?;
    env.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let body: Bytes = (0..3_000_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    let response = env.http_client.send(Method::POST, &env.host("hello"), "/echo", body.clone()).await?;
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(response.header("rouse-cold-start"), Some("true"));
    assert!(response.body == body, "{} bytes came back of {}", response.body.len(), body.len());
    env.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_function_are_passed_through() -> Result<()> {
    let env = TestEnv::new("status").await?;
    env.ready("hello", json!({})).await?;
    for status in [404, 418, 500, 503] {
        let response = env.get("hello", &format!("/?status={status}")).await?;
        assert_eq!(response.status.as_u16(), status);
        assert_ne!(
            response.header("content-type"),
            Some("application/problem+json"),
            "a function's own response was replaced"
        );
    }
    env.finish().await
}
