//! HTTP/2 requests that would be another request, or two, when written as HTTP/1.1.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::sync::Arc;

use http_body_util::BodyExt;
use parking_lot::Mutex;
use rig::{FakePod, Frames, frames, get, ok, warm};
use serde_json::json;

const HOST: &str = "hello.default.example.com";

/// Deviations of a request from a plain one.
struct Odd {
    name: &'static str,
    headers: &'static [(&'static str, &'static str)],
    data: Option<&'static str>,
}

const PLAIN: [(&str, &str); 4] = [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", HOST)];

/// With these headers in place of the plain ones.
const fn odd(name: &'static str, headers: &'static [(&'static str, &'static str)]) -> Odd {
    Odd { name, headers, data: None }
}

const fn with(name: &'static str, headers: &'static [(&'static str, &'static str)], data: &'static str) -> Odd {
    Odd { name, headers, data: Some(data) }
}

#[tokio::test]
async fn only_single_valid_requests_pass() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let pod = FakePod::start({
        let seen = seen.clone();
        move |request| {
            let seen = seen.clone();
            async move {
                let (parts, body) = request.into_parts();
                if let Ok(body) = body.collect().await {
                    let body = body.to_bytes();
                    seen.lock().push(format!("{} {} {}", parts.method, parts.uri, String::from_utf8_lossy(&body)));
                }
                ok("hi")
            }
        }
    })
    .await;
    let rig = warm(&pod, json!({})).await;
    for odd in [
        odd("an encoding", &[("transfer-encoding", "chunked")]),
        odd("a connection header", &[("connection", "close")]),
        odd("a keep-alive header", &[("keep-alive", "1")]),
        odd("a proxy-connection header", &[("proxy-connection", "x")]),
        odd("an upgrade", &[("upgrade", "websocket")]),
        odd("TE with something else", &[("te", "gzip")]),
        odd("CR LF in a value", &[("x", "a\r\ntransfer-encoding: chunked")]),
        odd("LF in a value", &[("x", "a\nb: c")]),
        odd("CR in a value", &[("x", "a\rb")]),
        odd("NUL in a value", &[("x", "a\0b")]),
        odd("CR LF in a name", &[("x: y\r\nz", "a")]),
        odd("a colon in a name", &[("x:y", "a")]),
        odd("a space in a name", &[("x y", "a")]),
        odd("a name in upper case", &[("X", "a")]),
        odd("no name", &[("", "a")]),
        odd("a pseudo-header that is none", &[(":x", "a")]),
        odd("that of an answer", &[(":status", "200")]),
        odd("that of extended CONNECT", &[(":protocol", "websocket")]),
        odd("a second path", &[(":path", "/b"), (":path", "/c")]),
        odd("a space in the path", &[(":path", "/a HTTP/1.1")]),
        odd("CR LF in the path", &[(":path", "/a HTTP/1.1\r\nx: y")]),
        odd("no slash in the path", &[(":path", "a")]),
        odd("an empty path", &[(":path", "")]),
        odd("a host in the path", &[(":path", "other.example.com/x")]),
        odd("a star in the path", &[(":path", "*")]),
        odd("a space in the method", &[(":method", "GET /b")]),
        odd("CR LF in the method", &[(":method", "GET\r\nx")]),
        odd("an empty method", &[(":method", "")]),
        odd("another host header", &[("host", "other.example.com")]),
        odd("two host headers", &[("host", HOST), ("host", HOST)]),
        odd("user information", &[(":authority", "a@hello.default.example.com")]),
        odd("a path in the authority", &[(":authority", "hello.default.example.com/x")]),
        odd("a space in the authority", &[(":authority", "hello.default.example.com x")]),
        odd("an empty authority", &[(":authority", "")]),
        with("a length that is too long", &[("content-length", "5")], "abc"),
        with("a length that is too short", &[("content-length", "2")], "abc"),
        with("a length of nothing", &[("content-length", "0")], "abc"),
        odd("a length without a body", &[("content-length", "3")]),
        with("two lengths", &[("content-length", "3"), ("content-length", "4")], "abc"),
        with("a signed length", &[("content-length", "+3")], "abc"),
        with("a listed length", &[("content-length", "3, 3")], "abc"),
    ] {
        let mut headers: Vec<(&str, &str)> =
            PLAIN.into_iter().filter(|(name, _)| !odd.headers.iter().any(|(odd, _)| odd == name)).collect();
        headers.extend(odd.headers);
        // Pseudo-headers come first.
        headers.sort_by_key(|(name, _)| !name.starts_with(':'));
        let mut client = Frames::connect(rig.public).await;
        let end = if odd.data.is_none() { frames::END_STREAM } else { 0 };
        let mut bytes = frames::frame(frames::HEADERS, end | frames::END_HEADERS, 1, &frames::block(&headers));
        if let Some(data) = odd.data {
            bytes.extend(frames::frame(frames::DATA, frames::END_STREAM, 1, data.as_bytes()));
        }
        client.send(&bytes).await;
        let answer = client.next_of(&[frames::HEADERS, frames::RESET, frames::GOAWAY]).await;
        let refused = answer.as_ref().is_none_or(|a| a.kind != frames::HEADERS || a.status() == Some(400));
        assert!(refused, "{}: {answer:?}", odd.name);
        assert_eq!(*seen.lock(), Vec::<String>::new(), "{}", odd.name);
    }
    // The plain request is valid.
    let mut client = Frames::connect(rig.public).await;
    let head = frames::frame(frames::HEADERS, frames::END_HEADERS, 1, &frames::block(&PLAIN));
    client
        .send(&[head, frames::frame(frames::DATA, frames::END_STREAM, 1, b"0\r\n\r\nGET /b HTTP/1.1\r\n\r\n")].concat())
        .await;
    let answer = client.next_of(&[frames::HEADERS, frames::RESET, frames::GOAWAY]).await;
    assert_eq!(answer.and_then(|a| a.status()), Some(200));
    assert_eq!(*seen.lock(), ["POST /a 0\r\n\r\nGET /b HTTP/1.1\r\n\r\n"]);
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    rig.in_flight("hello", 0).await;
}
