//! Bodies that take their time, both ways.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::time::Instant;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_arrives_piece_by_piece() -> Result<()> {
    let scene = Scene::new("stream").await?;
    scene.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let response =
        scene.caller.begin(Method::GET, &scene.host("hello"), "/stream?chunks=5&interval_ms=400", Bytes::new()).await?;
    assert_eq!(response.status(), StatusCode::OK);
    let first = Instant::now();
    let mut body = response.into_body();
    let mut arrivals = vec![];
    while let Some(frame) = body.frame().await {
        if frame?.into_data().is_ok_and(|d| !d.is_empty()) {
            arrivals.push(first.elapsed());
        }
    }
    let spread = *arrivals.last().context("no data came")?;
    assert!(arrivals.len() >= 5, "{} pieces of 5", arrivals.len());
    assert!(spread >= Duration::from_millis(1200), "five pieces 400 ms apart came within {spread:?}");
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_comes_back_whole_through_a_cold_start() -> Result<()> {
    let scene = Scene::new("upload").await?;
    scene.ready("hello", json!({"scaling": {"initial": 0}})).await?;
    let body: Bytes = (0..3_000_000u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    let answer = scene.caller.send(Method::POST, &scene.host("hello"), "/echo", body.clone()).await?;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("rouse-cold-start"), Some("true"));
    assert!(answer.body == body, "{} bytes came back of {}", answer.body.len(), body.len());
    scene.done().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_functions_own_errors_are_its_own() -> Result<()> {
    let scene = Scene::new("status").await?;
    scene.ready("hello", json!({})).await?;
    for status in [404, 418, 500, 503] {
        let answer = scene.get("hello", &format!("/?status={status}")).await?;
        assert_eq!(answer.status.as_u16(), status);
        assert_ne!(
            answer.header("content-type"),
            Some("application/problem+json"),
            "a function's own answer was replaced"
        );
    }
    scene.done().await
}
