//! Memory of the process for clients that do not read, and for queued requests: the figures of docs/tasks/limits.md.
//!
//! The only test of its process, since the memory is that of the process. Pods and clients are in it too, so what is
//! measured is more than what the activator holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::net::SocketAddr;

use rig::{Frames, Rig, frames, narrow, raw_pod, running};
use serde_json::json;
use socket2::SockRef;
use tokio::{io::AsyncWriteExt, task::JoinSet};

const CLIENTS: usize = 100;

/// Documented bounds for each, in KiB.
const HTTP_1: usize = 512;
const HTTP_2_STREAM: usize = 128;
const UPLOAD: usize = 512;
const QUEUED: usize = 64;

/// Resident memory that is not backed by files, in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Waits until the memory has stopped growing; returns KiB for each client since `before`.
async fn each(before: usize) -> usize {
    let (mut most, mut same) = (0, 0);
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let now = resident();
        same = if now > most { 0 } else { same + 1 };
        most = most.max(now);
        if same == 10 {
            break;
        }
    }
    most.saturating_sub(before) / CLIENTS
}

#[tokio::test]
async fn a_hostile_client_holds_little_memory() {
    let port = raw_pod(|head, mut stream| async move {
        if head.starts_with("POST") {
            // It reads none of the body.
            std::future::pending::<()>().await;
        }
        SockRef::from(&stream).set_send_buffer_size(16 << 10).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
        while stream.write(&[b'x'; 4 << 10]).await.is_ok() {}
        None
    })
    .await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.function("cold", json!({}));
    rig.show_as("hello-00001-0", "hello", running(), port);
    let host = "Host: hello.default.example.com\r\n";

    let before = resident();
    let queued = upload(rig.public, "cold").await;
    rig.queued("cold", CLIENTS as u64).await;
    let parked = each(before).await;

    let before = resident();
    let mut clients = vec![];
    for _ in 0..CLIENTS {
        clients.push(narrow(rig.public, &format!("GET / HTTP/1.1\r\n{host}\r\n")).await);
    }
    rig.in_flight("hello", CLIENTS as u64).await;
    let http1 = each(before).await;

    let before = resident();
    let mut client = Frames::connect(rig.public).await;
    client.send(&frames::frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    let block = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "hello.default.example.com")];
    for stream in 0..CLIENTS {
        let head = frames::END_STREAM | frames::END_HEADERS;
        let stream = u32::try_from(2 * stream + 1).unwrap();
        client.send(&frames::frame(frames::HEADERS, head, stream, &frames::block(&block))).await;
    }
    rig.in_flight("hello", 2 * CLIENTS as u64).await;
    let http2 = each(before).await;

    let before = resident();
    let uploads = upload(rig.public, "hello").await;
    rig.in_flight("hello", 3 * CLIENTS as u64).await;
    let uploading = each(before).await;

    println!("KiB for each: HTTP/1 {http1}, HTTP/2 stream {http2}, upload {uploading}, queued {parked}");
    assert!(http1 < HTTP_1 && http2 < HTTP_2_STREAM, "{http1} {http2}");
    assert!(uploading < UPLOAD && parked < QUEUED, "{uploading} {parked}");
    drop((clients, client, uploads, queued));
}

/// Clients that send as much of a body as is taken.
async fn upload(to: SocketAddr, function: &str) -> JoinSet<()> {
    let head = format!("POST / HTTP/1.1\r\nHost: {function}.default.example.com\r\nContent-Length: 1000000000\r\n\r\n");
    let mut uploads = JoinSet::new();
    for _ in 0..CLIENTS {
        let mut stream = narrow(to, &head).await;
        uploads.spawn(async move { while stream.write_all(&[b'x'; 4 << 10]).await.is_ok() {} });
    }
    uploads
}
