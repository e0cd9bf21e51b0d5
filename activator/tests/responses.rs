//! Invalid responses of pods: the client of the request gets an error, and later requests are not affected.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use http::Request;
use http_body_util::{BodyExt, Full};
use rig::{Client, GENEROUS, Rig, get, raw, raw_answer, raw_pod, read_until, running};
use serde_json::json;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    time::timeout,
};

const HOST: &str = "hello.default.example.com";

/// A function whose pod responds to `/bad` with these bytes, and to everything else with a valid response. It never
/// closes a connection.
async fn answering(bad: &'static [u8]) -> Rig {
    let port = raw_pod(move |head, mut stream| async move {
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine".as_slice();
        let bytes = if head.starts_with("GET /bad") { bad } else { good };
        stream.write_all(bytes).await.ok()?;
        Some(stream)
    })
    .await;
    let rig = Rig::start().await;
    rig.function("hello", json!({"timeouts": {"response": "2s"}}));
    rig.show_as("p", "hello", running(), port);
    rig
}

/// The status of the response to `/bad`, and its body if that ends.
async fn bad(rig: &Rig) -> (u16, Option<String>) {
    let mut client = Client::connect(rig.public).await;
    let request = Request::get("/bad").header("host", HOST).body(Full::default().boxed()).unwrap();
    let (parts, body) = client.begin(request).await.into_parts();
    let body = timeout(GENEROUS, body.collect()).await.expect("the answer has no end").ok();
    (parts.status.as_u16(), body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()))
}

async fn check(name: &str, bytes: &'static [u8], status: u16, body: Option<&str>) {
    let rig = answering(bytes).await;
    for _ in 0..10 {
        let answer = bad(&rig).await;
        assert_eq!(answer.0, status, "{name}: {answer:?}");
        if status != 502 {
            assert_eq!(answer.1.as_deref(), body, "{name}");
        }
        for _ in 0..2 {
            let next = get(rig.public, HOST, "/").await;
            assert_eq!((next.status.as_u16(), next.text().as_str()), (200, "fine"), "{name}: the next request is hit");
        }
    }
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn an_unparsable_response_is_a_502() {
    for (name, bytes) in [
        ("not HTTP", b"hello\r\n\r\n".as_slice()),
        ("no status", b"HTTP/1.1\r\n\r\n"),
        ("a status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        ("another version", b"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
        ("a length that is none", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        ("NUL in a value", b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
        ("a space before the colon", b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n"),
        (
            "both lengths",
            b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        ),
        (
            "both lengths, the other way round",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        ),
        (
            "a coding that was not asked for",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        ),
        ("a coding without an end", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n"),
        ("chunks in HTTP/1.0", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
        ("a folded header", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
    ] {
        check(name, bytes, 502, None).await;
    }
}

#[tokio::test]
async fn surplus_bytes_of_a_response_are_dropped() {
    for (name, bytes, body) in [
        ("more than its length", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison".as_slice(), Some("ab")),
        ("more than nothing", b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", Some("")),
        ("a body where none may be", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\npoison", Some("")),
        ("more than its chunks", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison", Some("ab")),
        ("the same length twice", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", Some("ab")),
        ("a malformed chunk", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nx\r\n\r\n", None),
    ] {
        let status = if name.starts_with("more than nothing") { 204 } else if name.starts_with("a body where") { 304 } else { 200 };
        check(name, bytes, status, body).await;
    }
}

#[tokio::test]
async fn endless_interim_responses_time_out() {
    let port = raw_pod(|head, mut stream| async move {
        if head.starts_with("GET /bad") {
            while stream.write_all(b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n").await.is_ok() {}
            return None;
        }
        stream
            .write_all(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
            .await
            .ok()?;
        Some(stream)
    })
    .await;
    let rig = Rig::start().await;
    rig.function("hello", json!({"timeouts": {"response": "1s"}}));
    rig.show_as("p", "hello", running(), port);
    let flooded = tokio::spawn({
        let public = rig.public;
        async move { get(public, HOST, "/bad").await }
    });
    // Others are served meanwhile, and one or two interim responses are allowed.
    rig.in_flight("hello", 1).await;
    assert_eq!(get(rig.public, HOST, "/").await.text(), "fine");
    assert_eq!(timeout(GENEROUS, flooded).await.expect("it goes on").unwrap().status, 504);
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn a_truncated_response_is_truncated_for_the_client() {
    for bytes in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let port = raw_pod(move |_, mut stream| async move {
            stream.write_all(bytes).await.ok();
            None
        })
        .await;
        let rig = Rig::start().await;
        rig.function("hello", json!({}));
        rig.show_as("p", "hello", running(), port);
        assert_eq!(bad(&rig).await, (200, None));
        rig.in_flight("hello", 0).await;
    }
}

/// Version and reason phrase of the pod are not those of the activator, whose responses of unknown length have chunks.
#[tokio::test]
async fn the_version_of_the_pod_is_not_copied() {
    for resets in [false, true] {
        let passed = Arc::new(Notify::new());
        let client_has_read = passed.clone();
        let port = raw_pod(move |_, mut stream| {
            let client_has_read = client_has_read.clone();
            async move {
                stream.write_all(b"HTTP/1.0 200 Certainly\r\nKeep-Alive: timeout=9\r\n\r\nhello").await.ok()?;
                client_has_read.notified().await;
                if resets {
                    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).ok()?;
                }
                None
            }
        })
        .await;
        let rig = Rig::start().await;
        rig.function("hello", json!({}));
        rig.show_as("p", "hello", running(), port);
        let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
        let mut client = raw(rig.public, &request).await;
        let mut answer = read_until(&mut client, "5\r\nhello\r\n").await;
        passed.notify_one();
        timeout(GENEROUS, client.read_to_string(&mut answer)).await.expect("no end").ok();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("transfer-encoding: chunked") && !answer.contains("keep-alive"), "{answer}");
        assert_eq!(answer.ends_with("5\r\nhello\r\n0\r\n\r\n"), !resets, "{answer}");
        rig.in_flight("hello", 0).await;
    }
}

#[tokio::test]
async fn the_size_of_a_response_head_is_limited() {
    let port = raw_pod(|head, mut stream| async move {
        let count: usize = head.split(['/', ' ']).nth(2)?.parse().ok()?;
        let length: usize = head.split(['/', ' ']).nth(3)?.parse().ok()?;
        let fields = format!("Set-Cookie: {}\r\n", "x".repeat(length)).repeat(count);
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n").as_bytes()).await.ok()?;
        Some(stream)
    })
    .await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.show_as("p", "hello", running(), port);
    for (path, status) in [("/101/9", 200), ("/250/9", 200), ("/10/3000", 200), ("/300/1", 502), ("/20/3000", 502)] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
        let answer = raw_answer(rig.public, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        let problem = ["https://rouse.dev/problems/bad-response", "32 KiB or has more than 256 fields"];
        assert!(status == 200 || problem.iter().all(|text| answer.contains(text)), "{answer}");
    }
    rig.in_flight("hello", 0).await;
}
