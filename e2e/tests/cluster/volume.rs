//! A gibibyte, both ways, that nobody keeps.

use std::{convert::Infallible, time::Duration};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HOST};

use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use rouse_e2e::world::PATIENCE;
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use crate::scene::Scene;

const GIBIBYTE: u64 = 1 << 30;
/// HTTP/2 costs each party several times as much for a byte, and a quarter is still far more than may be kept.
const QUARTER: u64 = GIBIBYTE / 4;
/// By so much the activator may grow while a gibibyte passes. What is under way in it is a few buffers of a connection, and a
/// window of 16 MiB at most where HTTP/2 has widened it; the allocator may hold on to as much again. Several times as much
/// passes, so a body that is kept, even in part, is seen.
const GROWTH: f64 = 64.0 * 1024.0 * 1024.0;
/// How often the activator is asked for its memory: some thirty times in a transfer.
const LOOK: Duration = Duration::from_millis(100);

async fn download(scene: &Scene, name: &str, bytes: u64) -> Result<()> {
    let path = format!("/size?bytes={bytes}");
    let response = scene.caller.begin(Method::GET, &scene.host(name), &path, Bytes::new()).await?;
    ensure!(response.status() == StatusCode::OK, "{}", response.status());
    let (mut body, mut got) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        got += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    ensure!(got == bytes, "{got} bytes came of {bytes}");
    Ok(())
}

async fn upload(scene: &Scene, name: &str, bytes: u64) -> Result<()> {
    static BLOCK: [u8; 65536] = [b'.'; 65536];
    let blocks = (0..bytes / 65536).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&BLOCK))));
    let body = StreamBody::new(futures::stream::iter(blocks));
    let io = TokioIo::new(TcpStream::connect(scene.caller.address()).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let request = Request::post("/upload").header(HOST, scene.host(name)).body(body)?;
    // The sender goes with the answer, and the connection, which would be kept for another request, with the sender.
    let answer = async move {
        let response = sender.send_request(request).await?;
        anyhow::Ok((response.status(), response.into_body().collect().await?.to_bytes()))
    };
    let (answer, _) = tokio::join!(answer, connection);
    let (status, said) = answer?;
    let said: serde_json::Value = serde_json::from_slice(&said)?;
    ensure!(status == StatusCode::OK && said["bytes"] == bytes, "{status}: {said}");
    Ok(())
}

/// Most memory that the activator had while `transfer` went on.
async fn most(scene: &Scene, transfer: impl Future<Output = Result<()>>) -> Result<f64> {
    let resident = async || scene.metric("process_resident_memory_bytes", &[]).await;
    let mut transfer = std::pin::pin!(timeout(PATIENCE, transfer));
    let mut most = resident().await?;
    loop {
        tokio::select! {
            ended = &mut transfer => {
                ended??;
                return Ok(most.max(resident().await?));
            }
            () = tokio::time::sleep(LOOK) => most = most.max(resident().await?),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_each_way_stays_nowhere() -> Result<()> {
    // Alone, for what other tests have the activator hold would count.
    let scene = Scene::alone("volume").await?;
    for (name, protocol, volume) in [("one", "http1", GIBIBYTE), ("two", "h2c", QUARTER)] {
        scene.ready(name, json!({"protocol": protocol})).await?;
        // Buffers, connections and what else there is once.
        download(&scene, name, volume / 16).await?;
        upload(&scene, name, volume / 16).await?;
        let before = scene.metric("process_resident_memory_bytes", &[]).await?;
        ensure!(before > 0.0, "the activator does not tell its memory");
        for (way, most) in [
            ("down", most(&scene, download(&scene, name, volume)).await?),
            ("up", most(&scene, upload(&scene, name, volume)).await?),
        ] {
            let growth = most - before;
            println!("{protocol} {way}: {:.1} MiB, {:+.1} MiB", most / 1048576.0, growth / 1048576.0);
            ensure!(growth < GROWTH, "{protocol} {way}: from {before} bytes to {most}");
        }
    }
    scene.done().await
}
