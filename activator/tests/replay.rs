//! Replays after a pod closes its connection, and requests that are not replayed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rig::*;
use rstest::rstest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const HOST: &str = "hello.default.example.com";

/// A pod that responds to the requests of these numbers, from 1 over all its connections, and closes instead of
/// responding to others. Requests have no body or the body `x`.
async fn pod(answered: fn(usize) -> bool) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let mut head = vec![];
                loop {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.is_ok_and(|n| n == 0) {
                        return;
                    }
                    head.push(byte[0]);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
                    if text.contains("content-length: 1") {
                        stream.read_exact(&mut byte).await.unwrap();
                    }
                    if !answered(count.fetch_add(1, Ordering::SeqCst) + 1) {
                        return;
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                    head.clear();
                }
            });
        }
    });
    (port, seen)
}

#[rstest]
#[case::get("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", 200, 3)]
#[case::delete("DELETE / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", 200, 3)]
#[case::put_without_body("PUT / HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 200, 3)]
#[case::put_with_body("PUT / HTTP/1.1\r\nHost: {}\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", 502, 2)]
#[case::post_with_body("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", 502, 2)]
#[case::post_without_body("POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", 502, 2)]
#[tokio::test]
async fn a_pod_that_closes_an_idle_connection(#[case] request: &str, #[case] status: u16, #[case] times: usize) {
    let (port, seen) = pod(|number| number != 2).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.show_as("p", "hello", running(), port);
    assert_eq!(get(rig.public, HOST, "/").await.text(), "ok");
    let answer = raw_answer(rig.public, &request.replace("{}", HOST)).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert_eq!(seen.load(Ordering::SeqCst), times);
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn a_request_that_crashes_its_pod_is_not_replayed_again() {
    let (port, seen) = pod(|_| false).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.show_as("p", "hello", running(), port);
    assert_eq!(get(rig.public, HOST, "/").await.status, 502);
    assert_eq!(seen.load(Ordering::SeqCst), 1, "the connection was new, so it was not closed for having been idle");
}

#[tokio::test]
async fn a_request_is_replayed_once() {
    let (port, seen) = pod(|number| number == 1).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.show_as("p", "hello", running(), port);
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    assert_eq!(get(rig.public, HOST, "/").await.status, 502);
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}
