//! Pods that misbehave: the slot is free within the documented time, and other requests are not affected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Request;
use http_body_util::{BodyExt, Full};
use rig::*;
use rstest::rstest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};

const HOST: &str = "hello.default.example.com";

const OK: &str = "HTTP/1.1 200 OK\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";

/// What a pod does after it has sent some bytes.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Nothing, and it ignores that the connection is closed.
    Nothing,
    /// It sends these bytes over and over, as fast as it can.
    Flood(&'static str),
    /// It sends these bytes over and over, slowly.
    Trickle(&'static str),
    Reset,
    /// It closes its sending side only.
    HalfClose,
    Close,
}

/// How the request ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Status(u16),
    /// In the middle of the body.
    Broken,
}

async fn misbehave(mut stream: TcpStream, first: &str, then: Then) {
    stream.write_all(first.as_bytes()).await.ok();
    match then {
        Then::Nothing => std::future::pending::<()>().await,
        Then::Flood(bytes) => {
            let bytes = bytes.repeat(1000);
            while stream.write_all(bytes.as_bytes()).await.is_ok() {}
        }
        Then::Trickle(bytes) => {
            while stream.write_all(bytes.as_bytes()).await.is_ok() {
                sleep(Duration::from_millis(50)).await;
            }
        }
        Then::Reset => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        Then::HalfClose => {
            stream.shutdown().await.ok();
            std::future::pending::<()>().await;
        }
        Then::Close => {}
    }
}

#[rstest]
#[case::never_responds("", Then::Nothing, End::Status(504))]
#[case::slow_head(OK, Then::Trickle("X"), End::Status(504))]
#[case::slow_fields(OK, Then::Trickle("X: y\r\n"), End::Status(504))]
#[case::unfinished_head("HTTP/1.1 200 OK\r\nX: y", Then::Nothing, End::Status(504))]
#[case::endless_status("HTTP/1.1 200 ", Then::Flood("x"), End::Status(502))]
#[case::endless_head(OK, Then::Flood("X: y\r\n"), End::Status(502))]
#[case::endless_field("HTTP/1.1 200 OK\r\nX: ", Then::Flood("y"), End::Status(502))]
#[case::endless_interim_responses("", Then::Flood("HTTP/1.1 102 Processing\r\n\r\n"), End::Status(504))]
#[case::slow_interim_responses("", Then::Trickle("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), End::Status(504))]
#[case::silent_body(LONG, Then::Nothing, End::Broken)]
#[case::silent_chunk("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", Then::Nothing, End::Broken)]
#[case::endless_chunk_size(CHUNKED, Then::Flood("0"), End::Broken)]
#[case::endless_chunk_extension(
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    Then::Flood("x"),
    End::Broken
)]
#[case::endless_extensions(CHUNKED, Then::Flood("1;xxxxxxxxxxxxxxxxxxxxx\r\na\r\n"), End::Broken)]
#[case::endless_trailers(
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    Then::Flood("X: y\r\n"),
    End::Broken
)]
#[case::endless_trailer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", Then::Flood("y"), End::Broken)]
#[case::silent_trailers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", Then::Nothing, End::Broken)]
#[case::reset_at_once("", Then::Reset, End::Status(502))]
#[case::reset_in_the_head("HTTP/1.1 200 OK\r\nX", Then::Reset, End::Status(502))]
#[case::closed_at_once("", Then::Close, End::Status(502))]
#[case::closed_in_the_head(OK, Then::Close, End::Status(502))]
#[case::closed_in_the_body(LONG, Then::Close, End::Broken)]
#[case::closed_in_a_chunk("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", Then::Close, End::Broken)]
#[case::closed_before_the_last_chunk(CHUNKED, Then::Close, End::Broken)]
#[case::half_closed_at_once("", Then::HalfClose, End::Status(502))]
#[case::half_closed_in_the_head(OK, Then::HalfClose, End::Status(502))]
#[case::half_closed_in_the_body(LONG, Then::HalfClose, End::Broken)]
#[tokio::test]
async fn a_pod_that_misbehaves(#[case] first: &'static str, #[case] then: Then, #[case] expected: End) {
    let port = raw_pod(move |head, mut stream| async move {
        if head.starts_with("GET /bad") {
            misbehave(stream, first, then).await;
            return None;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine").await.ok()?;
        Some(stream)
    })
    .await;
    let rig = Rig::start().await;
    rig.function("hello", json!({"timeouts": {"response": "1s", "idle": "1s"}}));
    rig.show_as("p", "hello", running(), port);
    let bad = tokio::spawn({
        let public = rig.public;
        async move {
            let mut client = Client::connect(public).await;
            let request = Request::get("/bad").header("host", HOST).body(Full::default().boxed()).unwrap();
            // If the body breaks off at once, the head may not be sent either.
            let response = timeout(GENEROUS, client.sender.send_request(request)).await.expect("no response");
            let Ok((parts, body)) = response.map(http::Response::into_parts) else { return End::Broken };
            match timeout(GENEROUS, body.collect()).await.expect("the response has no end") {
                Ok(_) => End::Status(parts.status.as_u16()),
                Err(_) => End::Broken,
            }
        }
    });
    for _ in 0..3 {
        assert_eq!(get(rig.public, HOST, "/").await.text(), "fine");
    }
    assert_eq!(bad.await.unwrap(), expected);
    rig.in_flight("hello", 0).await;
    assert_eq!(get(rig.public, HOST, "/").await.text(), "fine");
}

/// A pod with a concurrency limit of one still works on a request whose client has left, and gets the next one when it
/// has closed the connection.
#[rstest]
#[case::client_leaves(true)]
#[case::timeout(false)]
#[tokio::test]
async fn a_slot_is_free_when_the_pod_has_closed_the_connection(#[case] leaves: bool) {
    let (inside, most) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let working = Arc::new(Notify::new());
    let port = raw_pod({
        let (inside, most, working) = (inside.clone(), most.clone(), working.clone());
        move |head, mut stream| {
            let (inside, most, working) = (inside.clone(), most.clone(), working.clone());
            async move {
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                if head.starts_with("GET /slow") {
                    working.notify_one();
                    // It notices that nobody waits any more, and works on for a while.
                    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
                    sleep(Duration::from_millis(500)).await;
                } else {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine").await.unwrap();
                }
                inside.fetch_sub(1, Ordering::SeqCst);
                None
            }
        }
    })
    .await;
    let rig = Rig::start().await;
    rig.function("hello", json!({"scaling": {"concurrencyLimit": 1}, "timeouts": {"response": "2s"}}));
    rig.show_as("p", "hello", running(), port);
    let slow = tokio::spawn(get(rig.public, HOST, "/slow"));
    timeout(GENEROUS, working.notified()).await.expect("the pod gets no request");
    let next = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    if leaves {
        slow.abort();
    } else {
        assert_eq!(slow.await.unwrap().status, 504);
    }
    assert_eq!(next.await.unwrap().text(), "fine");
    assert_eq!(most.load(Ordering::SeqCst), 1, "requests in the pod at once");
    rig.in_flight("hello", 0).await;
}

/// Connections to a pod that never closes any.
#[tokio::test]
async fn idle_connections_are_closed_without_further_requests() {
    const BURST: usize = 10;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (open, waiting) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    tokio::spawn({
        let (open, waiting) = (open.clone(), waiting.clone());
        async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (open, waiting) = (open.clone(), waiting.clone());
                tokio::spawn(async move {
                    open.fetch_add(1, Ordering::SeqCst);
                    let mut head = vec![];
                    while let Ok(byte) = stream.read_u8().await {
                        head.push(byte);
                        if head.ends_with(b"\r\n\r\n") {
                            head.clear();
                            waiting.fetch_add(1, Ordering::SeqCst);
                            while waiting.load(Ordering::SeqCst) < BURST {
                                sleep(Duration::from_millis(1)).await;
                            }
                            let answer = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 4\r\n\r\nfine";
                            stream.write_all(answer).await.unwrap();
                        }
                    }
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        }
    });
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.show_as("p", "hello", running(), port);
    let burst: Vec<_> = (0..BURST).map(|_| tokio::spawn(get(rig.public, HOST, "/"))).collect();
    for request in burst {
        assert_eq!(request.await.unwrap().text(), "fine");
    }
    timeout(GENEROUS, async {
        while open.load(Ordering::SeqCst) > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("connections stay open");
}
