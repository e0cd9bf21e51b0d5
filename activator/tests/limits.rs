//! Limits of connections, heads and streams.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::sync::atomic::Ordering;

use http_body_util::{BodyExt, Full};
use rig::{Client, FakePod, Frames, GENEROUS, Rig, by_hand, frames, get, ok, raw, raw_answer, read_head};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const HOST: &str = "hello.default.example.com";

async fn started(flags: &[&str]) -> (Rig, FakePod) {
    let rig = Rig::with(flags).await;
    let pod = FakePod::saying("hi").await;
    rig.function("hello", json!({}));
    rig.start_pod("hello", &pod);
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    (rig, pod)
}

/// A pod that responds with the whole request body.
async fn reading() -> FakePod {
    FakePod::start(|request| async {
        let body = request.into_body().collect().await;
        ok(body.map(http_body_util::Collected::to_bytes).unwrap_or_default())
    })
    .await
}

#[tokio::test]
async fn heads_are_bounded() {
    let (rig, pod) = started(&["--max-head-bytes=8Ki", "--max-headers=10", "--max-request-line=4Ki"]).await;
    let host = format!("Host: {HOST}\r\n");
    let long = "x".repeat(9000);
    for (head, status, kind) in [
        (format!("GET / HTTP/1.1\r\n{host}X: {long}\r\n\r\n"), "HTTP/1.1 431", "header-too-large"),
        // The head need not be complete.
        (format!("GET / HTTP/1.1\r\n{host}X: {long}"), "HTTP/1.1 431", "header-too-large"),
        (format!("GET / HTTP/1.0\r\n{host}X: {long}"), "HTTP/1.0 431", "header-too-large"),
        (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(10)), "HTTP/1.1 431", "header-too-large"),
        (format!("GET /{long} HTTP/1.1\r\n{host}\r\n"), "HTTP/1.1 414", "uri-too-long"),
        (format!("GET /{long}"), "HTTP/1.1 414", "uri-too-long"),
        // An upload after it does not hide the response.
        (
            format!(
                "POST / HTTP/1.1\r\n{host}{}Content-Length: 3000000\r\n\r\n{}",
                "X: y\r\n".repeat(9),
                long.repeat(300)
            ),
            "HTTP/1.1 431",
            "header-too-large",
        ),
    ] {
        let answer = raw_answer(rig.public, &head).await;
        assert!(answer.starts_with(status) && answer.contains(kind), "{answer}");
        assert!(
            answer.to_ascii_lowercase().contains("connection: close") || answer.starts_with("HTTP/1.0"),
            "{answer}"
        );
    }
    assert_eq!(pod.requests.load(Ordering::SeqCst), 1);
    let head = format!("GET /{} HTTP/1.1\r\n{host}Connection: close\r\n{}\r\n", &long[..4000], "X: y\r\n".repeat(8));
    assert!(raw_answer(rig.public, &head).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn trailers_are_bounded() {
    let rig = Rig::with(&["--max-head-bytes=8Ki", "--max-headers=10"]).await;
    rig.function("hello", json!({}));
    // It cannot respond before the end of the body.
    let pod = reading().await;
    rig.start_pod("hello", &pod);
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n");
    for trailers in [format!("X: {}", "x".repeat(9000)), "X: y\r\n".repeat(11)] {
        let answer = raw_answer(rig.public, &(head.clone() + &trailers)).await;
        assert!(answer.starts_with("HTTP/1.1 431") && answer.contains("header-too-large"), "{answer}");
    }
    rig.in_flight("hello", 0).await;
    let answer = raw_answer(rig.public, &(head + "X: y\r\n\r\nGET / HTT")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn heads_and_idle_connections_have_timeouts() {
    let (rig, _pod) = started(&["--head-timeout=300ms", "--idle-connection-timeout=1h"]).await;
    let mut kept = Client::connect(rig.public).await;
    assert_eq!(kept.get(HOST, "/").await.status, 200);
    let silent = TcpStream::connect(rig.public).await.unwrap();
    for begun in ["G", "GET / HTTP/1.1\r\n", &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: y\r\n")] {
        let answer = raw_answer(rig.public, begun).await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request-timeout"), "{begun:?}: {answer}");
    }
    // The same after another request on the connection.
    let answer = raw_answer(rig.public, &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\nGET / HTT")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("HTTP/1.1 408"), "{answer}");
    // Counted from the first byte, however the bytes arrive.
    let mut slow = TcpStream::connect(rig.public).await.unwrap();
    let (mut answer, mut sent) = (vec![], 0);
    timeout(GENEROUS, async {
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            tokio::select! {
                read = slow.read_buf(&mut answer) => if read.is_err() || answer.ends_with(b"}") { break },
                _ = ticks.tick() => { slow.write_all(b"x").await.ok(); sent += 1 }
            }
        }
    })
    .await
    .expect("a head of one byte after the other is waited for without end");
    assert!(answer.starts_with(b"HTTP/1.1 408") && sent < 200, "{sent}");
    // All that took several times the head timeout.
    assert_eq!(kept.get(HOST, "/").await.status, 200);
    let mut silent = silent;
    silent.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes()).await.unwrap();
    assert!(read_head(&mut silent).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_idle_connection_ends() {
    let (rig, _pod) = started(&["--first-request-timeout=200ms", "--idle-connection-timeout=300ms"]).await;
    let never = raw_answer(rig.public, "").await;
    assert_eq!(never, "");
    // Empty lines are no request.
    assert_eq!(raw_answer(rig.public, "\r\n").await, "");
    let once = raw_answer(rig.public, &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(once.starts_with("HTTP/1.1 200") && once.matches("HTTP/1.1").count() == 1, "{once}");
}

#[tokio::test]
async fn an_idle_http_2_connection_ends_by_goaway() {
    let (rig, _pod) = started(&["--first-request-timeout=200ms", "--idle-connection-timeout=300ms"]).await;
    let mut silent = Frames::connect(rig.public).await;
    assert!(silent.next_of(&[frames::GOAWAY]).await.is_none(), "closed without a request to end");
    let mut client = Frames::connect(rig.public).await;
    let end = frames::END_STREAM | frames::END_HEADERS;
    client.send(&frames::frame(frames::HEADERS, end, 1, &get_block())).await;
    assert_eq!(client.next_of(&[frames::HEADERS]).await.unwrap().status(), Some(200));
    assert_eq!(client.next_of(&[frames::GOAWAY]).await.unwrap().payload[4..8], [0; 4]);
}

#[tokio::test]
async fn an_old_connection_closes_after_a_response() {
    let (rig, _pod) = started(&["--max-connection-age=300ms"]).await;
    let mut client = Client::connect(rig.public).await;
    let closing = async { while client.get(HOST, "/").await.header("connection") != "close" {} };
    timeout(GENEROUS, closing).await.expect("the connection stays open");
    // Over HTTP/2 a request in flight ends first.
    rig.function("cold", json!({}));
    let mut client = Frames::connect(rig.public).await;
    let block = frames::block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "cold.default.example.com"),
    ]);
    client.send(&frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 1, &block)).await;
    assert_eq!(client.next_of(&[frames::GOAWAY]).await.unwrap().payload[4..8], [0; 4]);
    let pod = FakePod::saying("hi").await;
    rig.start_pod("cold", &pod);
    assert_eq!(client.next_of(&[frames::HEADERS]).await.unwrap().status(), Some(200));
}

#[tokio::test]
async fn a_request_body_has_a_minimum_rate() {
    let rig = Rig::with(&["--body-timeout=300ms", "--min-body-rate=1Ki"]).await;
    rig.function("hello", json!({}));
    rig.function("streams", json!({"protocol": "h2c"}));
    let [pod, other] = [reading().await, reading().await];
    rig.start_pod("hello", &pod);
    rig.start_pod("streams", &other);
    let head = |name: &str, length: usize| {
        format!("POST / HTTP/1.1\r\nHost: {name}.default.example.com\r\nContent-Length: {length}\r\n\r\n")
    };
    // A gRPC client may stream for ever.
    let mut exempt = raw(rig.public, &head("streams", 3)).await;
    rig.in_flight("streams", 1).await;
    let answer = raw_answer(rig.public, &head("hello", 3)).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request-timeout"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    rig.in_flight("hello", 0).await;
    exempt.write_all(b"abc").await.unwrap();
    assert!(read_head(&mut exempt).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn connections_are_counted_by_listener_and_protocol() {
    let (rig, _pod) = started(&[]).await;
    let count = |listener: &str, protocol: &str| {
        format!(r#"rouse_activator_connections{{listener="{listener}",protocol="{protocol}"}}"#)
    };
    let silent = TcpStream::connect(rig.cluster).await.unwrap();
    rig.metric(&count("cluster", "new"), 1).await;
    let mut one = Client::connect(rig.public).await;
    one.get(HOST, "/").await;
    rig.metric(&count("public", "http1"), 1).await;
    let two = Frames::connect(rig.public).await;
    rig.metric(&count("public", "http2"), 1).await;
    drop((silent, one, two));
    rig.metric("rouse_activator_connections{", 0).await;
}

#[tokio::test]
async fn a_long_request_does_not_make_its_connection_idle() {
    let flags = ["--idle-connection-timeout=100ms", "--first-request-timeout=100ms", "--head-timeout=100ms"];
    let rig = Rig::with(&flags).await;
    rig.function("hello", json!({}));
    let mut post = raw(rig.public, &format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\n")).await;
    rig.queued("hello", 1).await;
    // Longer than both timeouts.
    assert_eq!(raw_answer(rig.public, "").await, "");
    assert!(raw_answer(rig.public, "G").await.starts_with("HTTP/1.1 408"));
    let pod = FakePod::start(|request| async { ok(request.into_body().collect().await.unwrap().to_bytes()) }).await;
    rig.start_pod("hello", &pod);
    rig.queued("hello", 0).await;
    assert_eq!(raw_answer(rig.public, "").await, "");
    post.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    timeout(GENEROUS, post.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("body"), "{answer}");
}

#[tokio::test]
async fn tunnels_count_as_connections() {
    let rig = Rig::with(&["--max-connections=1"]).await;
    rig.function("hello", json!({}));
    let pod = FakePod::start(|mut request| async move {
        if !request.headers().contains_key("upgrade") {
            return ok("hi");
        }
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            io.write_all(b"here").await.unwrap();
            io.read_to_end(&mut vec![]).await.ok();
        });
        let answer = http::Response::builder().status(101).header("connection", "upgrade").header("upgrade", "x");
        answer.body(Full::default().boxed()).unwrap()
    })
    .await;
    rig.start_pod("hello", &pod);
    let mut tunnel =
        raw(rig.public, &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")).await;
    assert!(read_head(&mut tunnel).await.starts_with("HTTP/1.1 101"));
    let mut here = [0; 4];
    timeout(GENEROUS, tunnel.read_exact(&mut here)).await.unwrap().unwrap();
    let next = tokio::spawn(get(rig.public, HOST, "/"));
    for _ in 0..50 {
        // Two, if the next one were accepted.
        rig.metric(r#"rouse_activator_connections{listener="public""#, 1).await;
    }
    assert_eq!(pod.requests.load(Ordering::SeqCst), 1, "a tunnel does not count");
    drop(tunnel);
    assert_eq!(next.await.unwrap().status, 200);
}

fn get_block() -> Vec<u8> {
    frames::block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", HOST)])
}

#[tokio::test]
async fn concurrent_streams_are_bounded_and_announced() {
    let (rig, _pod) = started(&["--max-streams=3"]).await;
    let mut client = Frames::connect(rig.public).await;
    let settings = client.next_of(&[frames::SETTINGS]).await.unwrap();
    let said: Vec<_> = settings.payload.chunks(6).filter(|s| s[..2] == [0, 3]).map(|s| s[2..].to_vec()).collect();
    assert_eq!(said, [[0, 0, 0, 3]]);
    // Streams past the limit are refused.
    let (_sender, _body) = by_hand();
    rig.function("cold", json!({}));
    let cold = frames::block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "cold.default.example.com"),
    ]);
    for stream in [1, 3, 5, 7] {
        client.send(&frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, stream, &cold)).await;
    }
    let refused = client.next_of(&[frames::RESET, frames::GOAWAY]).await.unwrap();
    assert_eq!((refused.kind, refused.stream, refused.payload.as_slice()), (frames::RESET, 7, [0, 0, 0, 7].as_slice()));
    rig.queued("cold", 3).await;
}

/// Sends until the other side stops reading; returns the number of bytes.
async fn flood(client: &mut Frames, bytes: &[u8], most: usize) -> usize {
    let mut sent = 0;
    let flooding = async {
        while sent < most {
            // The other side reads nothing more, or has closed.
            match timeout(std::time::Duration::from_secs(1), client.stream.write_all(bytes)).await {
                Ok(Ok(())) => sent += bytes.len(),
                _ => break,
            }
        }
    };
    timeout(GENEROUS * 2, flooding).await.expect("the flood is taken");
    sent
}

#[tokio::test]
async fn a_flood_of_resets_ends_the_connection() {
    let (rig, pod) = started(&[]).await;
    let mut client = Frames::connect(rig.public).await;
    let pairs: Vec<u8> = (0..20_000_u32)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            let head = frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, stream, &get_block());
            [head, frames::frame(frames::RESET, 0, stream, &[0, 0, 0, 8])].concat()
        })
        .collect();
    // The connection ends before all are sent.
    client.stream.write_all(&pairs).await.ok();
    let told = client.next_of(&[frames::GOAWAY]).await.expect("the flood is taken");
    // ENHANCE_YOUR_CALM
    assert_eq!(told.payload[4..8], [0, 0, 0, 11]);
    // A few are accepted between two reads.
    assert!(pod.requests.load(Ordering::SeqCst) < 500, "the flood reaches the pod");
    rig.in_flight("hello", 0).await;
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
}

#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let (rig, pod) = started(&[]).await;
    for (name, block) in [("empty", vec![]), ("full", frames::literal("x", &"y".repeat(100)).repeat(100))] {
        let mut client = Frames::connect(rig.public).await;
        client.send(&frames::frame(frames::HEADERS, frames::END_STREAM, 1, &get_block())).await;
        let more = frames::frame(frames::CONTINUATION, 0, 1, &block).repeat(if block.is_empty() { 1000 } else { 1 });
        let sent = flood(&mut client, &more, 64 << 20).await;
        assert!(sent < 32 << 20, "{name}: {sent} bytes were taken");
        let told = client.next_of(&[frames::GOAWAY, frames::HEADERS]).await;
        assert!(told.is_none_or(|told| told.kind == frames::GOAWAY), "{name}: it is answered");
    }
    assert_eq!(pod.requests.load(Ordering::SeqCst), 1);
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
}

#[tokio::test]
async fn heads_of_http_2_are_bounded() {
    let (rig, pod) = started(&["--max-head-bytes=8Ki", "--max-request-line=4Ki", "--max-headers=100"]).await;
    let header = frames::literal("x", &"y".repeat(100));
    for (count, what) in [(101, frames::literal("x", "")), (90, header.clone())] {
        let mut client = Frames::connect(rig.public).await;
        let block = [get_block(), what.repeat(count)].concat();
        client.send(&frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 1, &block)).await;
        let head = client.next_of(&[frames::HEADERS, frames::RESET, frames::GOAWAY]).await.unwrap();
        assert_eq!(head.status(), Some(431), "{count}: {head:?}");
        // The connection goes on.
        let block = [get_block(), header.repeat(10)].concat();
        client.send(&frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 3, &block)).await;
        loop {
            let head = client.next_of(&[frames::HEADERS, frames::GOAWAY]).await.unwrap();
            if head.stream == 3 {
                assert_eq!(head.status(), Some(200), "{head:?}");
                break;
            }
        }
    }
    assert_eq!(pod.requests.load(Ordering::SeqCst), 3);
}
