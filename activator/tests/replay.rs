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
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const HOST: &str = "hello.default.example.com";

/// What a pod does with a request that it does not respond to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    /// It closes the connection and leaves the request unread, as a server does whose idle timeout expires at that
    /// moment.
    Unread,
    /// It reads the request and closes the connection, as a process does that crashes.
    Crash,
    /// It also closes its listener.
    Exit,
}

/// How many requests a pod has seen: those to `/warm`, which it always responds to, and others.
#[derive(Clone, Default)]
struct Seen {
    warm: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
}

/// A pod that responds to the requests of these numbers, from 1 over all its connections. Requests have no body or the
/// body `x`.
async fn pod(answered: fn(usize) -> bool, loss: Loss) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Seen::default();
    let count = seen.clone();
    let exited = CancellationToken::new();
    tokio::spawn(async move {
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => accepted.unwrap().0,
                () = exited.cancelled() => return,
            };
            tokio::spawn(connection(stream, answered, loss, count.clone(), exited.clone()));
        }
    });
    (port, seen)
}

async fn connection(
    mut stream: TcpStream,
    answered: fn(usize) -> bool,
    loss: Loss,
    seen: Seen,
    exited: CancellationToken,
) {
    loop {
        let mut start = [0; 9];
        // A probe closes without a byte.
        if stream.peek(&mut start).await.unwrap_or(0) == 0 {
            return;
        }
        let responds = if &start == b"GET /warm" {
            seen.warm.fetch_add(1, Ordering::SeqCst);
            true
        } else {
            answered(seen.others.fetch_add(1, Ordering::SeqCst) + 1)
        };
        if !responds && loss == Loss::Unread {
            return;
        }
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        if String::from_utf8_lossy(&head).to_ascii_lowercase().contains("content-length: 1") {
            stream.read_u8().await.unwrap();
        }
        if !responds {
            if loss == Loss::Exit {
                exited.cancel();
            }
            return;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n";
const DELETE: &str = "DELETE / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const PUT_BODY: &str = "PUT / HTTP/1.1\r\nHost: {}\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
const POST_BODY: &str = "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
const POST: &str = "POST / HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[rstest]
#[case::get(GET, Loss::Unread, 200, 3)]
#[case::delete(DELETE, Loss::Unread, 200, 3)]
#[case::put_without_body(PUT, Loss::Unread, 200, 3)]
#[case::put_with_body(PUT_BODY, Loss::Unread, 502, 2)]
#[case::post_with_body(POST_BODY, Loss::Unread, 502, 2)]
#[case::post_without_body(POST, Loss::Unread, 502, 2)]
#[case::crash_of_get(GET, Loss::Crash, 502, 2)]
#[case::crash_of_delete(DELETE, Loss::Crash, 502, 2)]
#[case::crash_of_put(PUT, Loss::Crash, 502, 2)]
#[case::exit_of_get(GET, Loss::Exit, 502, 2)]
#[tokio::test]
async fn a_pod_that_closes_a_reused_connection(
    #[case] request: &str,
    #[case] loss: Loss,
    #[case] status: u16,
    #[case] times: usize,
) {
    let (port, seen) = pod(|number| number != 2, loss).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.show_as("p", "hello", running(), port);
    assert_eq!(get(rig.public, HOST, "/").await.text(), "ok");
    let answer = raw_answer(rig.public, &request.replace("{}", HOST)).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert_eq!(seen.others.load(Ordering::SeqCst), times);
    rig.in_flight("hello", 0).await;
}

/// Each pod has an idle connection, and exits at its second request.
#[rstest]
#[case::get(GET, Loss::Exit)]
#[case::delete(DELETE, Loss::Exit)]
#[case::unread(GET, Loss::Unread)]
#[tokio::test]
async fn a_request_reaches_at_most_two_connections_of_one_pod(#[case] request: &str, #[case] loss: Loss) {
    let rig = Rig::start().await;
    rig.function("hello", json!({"timeouts": {"coldStart": "60s"}}));
    let mut pods = vec![];
    for name in ["a", "b", "c"] {
        let (port, seen) = pod(|_| false, loss).await;
        rig.show_as(name, "hello", running(), port);
        timeout(GENEROUS, async {
            while seen.warm.load(Ordering::SeqCst) == 0 {
                assert_eq!(get(rig.public, HOST, "/warm").await.status, 200);
            }
        })
        .await
        .expect("the pod gets no request");
        pods.push(seen);
    }
    let began = tokio::time::Instant::now();
    let answer = raw_answer(rig.public, &request.replace("{}", HOST)).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let sum: usize = pods.iter().map(|seen| seen.others.load(Ordering::SeqCst)).sum();
    assert!(sum <= 2, "{sum} requests in the pods");
    assert!(began.elapsed() < GENEROUS, "the request does not wait until its pod has restarted");
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn a_request_that_crashes_its_pod_is_not_replayed() {
    let (port, seen) = pod(|_| false, Loss::Unread).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.show_as("p", "hello", running(), port);
    assert_eq!(get(rig.public, HOST, "/").await.status, 502);
    assert_eq!(
        seen.others.load(Ordering::SeqCst),
        1,
        "the connection was new, so it was not closed for having been idle"
    );
}

#[tokio::test]
async fn a_request_is_replayed_once() {
    let (port, seen) = pod(|number| number == 1, Loss::Unread).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.show_as("p", "hello", running(), port);
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    assert_eq!(get(rig.public, HOST, "/").await.status, 502);
    assert_eq!(seen.others.load(Ordering::SeqCst), 3);
}
