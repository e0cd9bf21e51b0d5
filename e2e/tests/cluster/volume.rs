//! Large request and response bodies, which the activator must not buffer.

use std::{convert::Infallible, time::Duration};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HOST};

use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use rouse_e2e::workspace::TIMEOUT;
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

use crate::test_env::TestEnv;

const GIBIBYTE: u64 = 1 << 30;
/// HTTP/2 takes several times more CPU per byte. A quarter is still far more than [`GROWTH`].
const QUARTER: u64 = GIBIBYTE / 4;
/// Memory by which the activator may grow during a transfer, in bytes: buffers of a connection, an HTTP/2 window of at most
/// 16 MiB, and as much again in the allocator. Bodies are several times larger, so a buffered body is detected.
const GROWTH: f64 = 64.0 * 1024.0 * 1024.0;
/// Poll interval of the activator's memory: some thirty times in a transfer.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

async fn download(env: &TestEnv, name: &str, bytes: u64) -> Result<()> {
    let path = format!("/size?bytes={bytes}");
    let response = env.http_client.send_streaming(Method::GET, &env.host(name), &path, Bytes::new()).await?;
    ensure!(response.status() == StatusCode::OK, "{}", response.status());
    let (mut body, mut got) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        got += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    ensure!(got == bytes, "received {got} of {bytes} bytes");
    Ok(())
}

async fn upload(env: &TestEnv, name: &str, bytes: u64) -> Result<()> {
    static BLOCK: [u8; 65536] = [b'.'; 65536];
    let blocks = (0..bytes / 65536).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&BLOCK))));
    let body = StreamBody::new(futures::stream::iter(blocks));
    let io = TokioIo::new(TcpStream::connect(env.http_client.address()).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    let request = Request::post("/upload").header(HOST, env.host(name)).body(body)?;
    // Dropping the sender after the response closes the connection, which would be kept alive otherwise.
    let exchange = async move {
        let response = sender.send_request(request).await?;
        anyhow::Ok((response.status(), response.into_body().collect().await?.to_bytes()))
    };
    let (exchange, _) = tokio::join!(exchange, connection);
    let (status, printed) = exchange?;
    let printed: serde_json::Value = serde_json::from_slice(&printed)?;
    ensure!(status == StatusCode::OK && printed["bytes"] == bytes, "{status}: {printed}");
    Ok(())
}

/// Returns the peak memory of the activator during `transfer`.
async fn peak_memory(env: &TestEnv, transfer: impl Future<Output = Result<()>>) -> Result<f64> {
    let resident = async || env.metric("process_resident_memory_bytes", &[]).await;
    let mut transfer = std::pin::pin!(timeout(TIMEOUT, transfer));
    let mut peak_memory = resident().await?;
    loop {
        tokio::select! {
            ended = &mut transfer => {
                ended??;
                return Ok(peak_memory.max(resident().await?));
            }
            () = tokio::time::sleep(POLL_INTERVAL) => peak_memory = peak_memory.max(resident().await?),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_are_not_buffered() -> Result<()> {
    // Exclusive, since requests of other tests would count.
    let env = TestEnv::exclusive("volume").await?;
    for (name, protocol, volume) in [("one", "http1", GIBIBYTE), ("two", "h2c", QUARTER)] {
        env.ready(name, json!({"protocol": protocol})).await?;
        // Warm-up: allocates buffers and connections.
        download(&env, name, volume / 16).await?;
        upload(&env, name, volume / 16).await?;
        let before = env.metric("process_resident_memory_bytes", &[]).await?;
        ensure!(before > 0.0, "the activator does not report its memory");
        for (direction, peak_memory) in [
            ("down", peak_memory(&env, download(&env, name, volume)).await?),
            ("up", peak_memory(&env, upload(&env, name, volume)).await?),
        ] {
            let growth = peak_memory - before;
            println!("{protocol} {direction}: {:.1} MiB, {:+.1} MiB", peak_memory / 1048576.0, growth / 1048576.0);
            ensure!(growth < GROWTH, "{protocol} {direction}: from {before} bytes to {peak_memory}");
        }
    }
    env.finish().await
}
