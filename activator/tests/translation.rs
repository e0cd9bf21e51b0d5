//! What changes in a request and in a response at the activator, for each pair of protocol versions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use http::{Request, Response};
use hyper::body::Incoming;
use rig::{FakePod, Frames, PodBody, frames, get, ok, raw, raw_answer, read_head, read_until, running, warm};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const HOST: &str = "hello.default.example.com";

/// Responds with the request as lines: method and target, then each field in the order of its name.
async fn lines(request: Request<Incoming>) -> Response<PodBody> {
    let target = request.uri().path_and_query().map_or("*", |target| target.as_str()).to_owned();
    let authority = request.uri().authority().map_or(String::new(), |authority| format!("\n:authority: {authority}"));
    let mut fields: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("\n{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    fields.sort();
    ok(format!("{} {target}{authority}{}\n", request.method(), fields.concat()))
}

/// Version of the client's request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum From {
    Http10,
    Http11,
    Http2,
}

/// A request with these fields is sent; the pod gets those of `to_pod` and none named in `not_to_pod`.
struct Case {
    what: &'static str,
    method: &'static str,
    from: &'static [From],
    /// Protocols of the pod.
    to: &'static [&'static str],
    sent: &'static [(&'static str, &'static str)],
    to_pod: &'static [(&'static str, &'static str)],
    not_to_pod: &'static [&'static str],
}

const PLAIN: Case = Case {
    what: "plain",
    method: "GET",
    from: &[From::Http10, From::Http11, From::Http2],
    to: &["http1", "h2c"],
    sent: &[],
    to_pod: &[],
    not_to_pod: &["te", "connection", "upgrade", "expect", "max-forwards", "http2-settings", "keep-alive"],
};

const HTTP1: &[From] = &[From::Http10, From::Http11];
const NEW: &[From] = &[From::Http11, From::Http2];

const REQUESTS: &[Case] = &[
    PLAIN,
    Case {
        what: "cookies of HTTP/2 are one field (RFC 9113, 8.2.3)",
        sent: &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2; c=3"), ("cookie", "d=4")],
        to_pod: &[("cookie", "a=1; b=2; c=3; d=4")],
        ..PLAIN
    },
    Case { what: "Host for HTTP/1", to: &["http1"], to_pod: &[("host", HOST)], not_to_pod: &[":authority"], ..PLAIN },
    Case {
        what: ":authority for HTTP/2",
        to: &["h2c"],
        to_pod: &[(":authority", HOST)],
        not_to_pod: &["host"],
        ..PLAIN
    },
    Case {
        what: "TE with Connection: TE for HTTP/1 (RFC 9110, 10.1.4)",
        from: HTTP1,
        to: &["http1"],
        sent: &[("te", "gzip;q=1"), ("te", "deflate, Trailers"), ("connection", "te")],
        to_pod: &[("te", "trailers"), ("connection", "TE")],
        not_to_pod: &[],
        ..PLAIN
    },
    Case {
        what: "TE without Connection for HTTP/2",
        from: HTTP1,
        to: &["h2c"],
        sent: &[("te", "gzip, trailers;q=1"), ("connection", "te")],
        to_pod: &[("te", "trailers")],
        not_to_pod: &["connection"],
        ..PLAIN
    },
    Case {
        what: "TE of HTTP/2",
        from: &[From::Http2],
        to: &["http1"],
        sent: &[("te", "trailers")],
        to_pod: &[("te", "trailers"), ("connection", "TE")],
        not_to_pod: &[],
        ..PLAIN
    },
    Case {
        what: "every member of every Connection field",
        from: HTTP1,
        sent: &[
            ("connection", "keep-alive, x-a"),
            ("connection", "x-b,, ,\tX-C "),
            ("connection", "\u{e9}, x-d"),
            ("x-a", "1"),
            ("x-b", "1"),
            ("x-c", "1"),
            ("x-d", "1"),
            ("x-e", "1"),
        ],
        to_pod: &[("x-e", "1")],
        not_to_pod: &["x-a", "x-b", "x-c", "x-d", "connection"],
        ..PLAIN
    },
    Case {
        what: "an upgrade to HTTP/2 is not passed on, alone or in a list",
        from: &[From::Http11],
        to: &["http1"],
        sent: &[("connection", "upgrade, http2-settings"), ("upgrade", "x/1, h2c"), ("upgrade", "HTTP/2.0, H2C, y")],
        to_pod: &[("upgrade", "x/1, y"), ("connection", "upgrade")],
        not_to_pod: &["http2-settings"],
        ..PLAIN
    },
    Case {
        what: "only upgrades to HTTP/2",
        from: &[From::Http11],
        to: &["http1"],
        sent: &[("connection", "upgrade"), ("upgrade", "h2c, http/2")],
        not_to_pod: &["connection", "upgrade"],
        ..PLAIN
    },
    Case {
        what: "an upgrade with TE",
        from: &[From::Http11],
        to: &["http1"],
        sent: &[("connection", "TE"), ("connection", "upgrade"), ("upgrade", "x"), ("te", "trailers")],
        to_pod: &[("upgrade", "x"), ("te", "trailers"), ("connection", "upgrade, TE")],
        not_to_pod: &[],
        ..PLAIN
    },
    Case {
        what: "no upgrade of HTTP/1.0",
        from: &[From::Http10],
        sent: &[("connection", "upgrade"), ("upgrade", "x")],
        not_to_pod: &["connection", "upgrade"],
        ..PLAIN
    },
    Case {
        what: "no upgrade on HTTP/2",
        from: &[From::Http11],
        to: &["h2c"],
        sent: &[("connection", "upgrade"), ("upgrade", "x")],
        not_to_pod: &["connection", "upgrade"],
        ..PLAIN
    },
    Case { what: "HTTP/1.0 has no expectations", from: &[From::Http10], sent: &[("expect", "x")], ..PLAIN },
    Case { what: "the activator reads the body", sent: &[("expect", "100-Continue")], ..PLAIN },
    Case { what: "Via of HTTP/1.0", from: &[From::Http10], to_pod: &[("via", "1.0 rouse")], ..PLAIN },
    Case {
        what: "Via is a list (RFC 9110, 7.6.3)",
        from: &[From::Http11],
        sent: &[("via", "1.0 fred"), ("via", "1.1 p.example (x)")],
        to_pod: &[("via", "1.0 fred, 1.1 p.example (x), 1.1 rouse")],
        ..PLAIN
    },
    Case { what: "Via of HTTP/2", from: &[From::Http2], to_pod: &[("via", "2 rouse")], ..PLAIN },
    Case {
        what: "Max-Forwards of OPTIONS (RFC 9110, 7.6.2)",
        method: "OPTIONS",
        from: NEW,
        sent: &[("max-forwards", "7")],
        to_pod: &[("max-forwards", "6")],
        not_to_pod: &[],
        ..PLAIN
    },
    Case {
        what: "Max-Forwards of TRACE",
        method: "TRACE",
        from: HTTP1,
        to: &["http1"],
        sent: &[("max-forwards", "1")],
        to_pod: &[("max-forwards", "0")],
        not_to_pod: &[],
    },
    Case {
        what: "Max-Forwards of other methods has no meaning",
        from: NEW,
        sent: &[("max-forwards", "0")],
        to_pod: &[("max-forwards", "0")],
        not_to_pod: &[],
        ..PLAIN
    },
];

/// Sends a request and returns the body of the response: what the pod got.
async fn sent(rig: &rig::Rig, from: From, method: &str, fields: &[(&str, &str)]) -> String {
    if from != From::Http2 {
        let version = if from == From::Http10 { "1.0" } else { "1.1" };
        let mut head = format!("{method} /x?y HTTP/{version}\r\nHost: {HOST}\r\n").into_bytes();
        for (name, value) in fields {
            // A non-ASCII character is one byte, as in HTTP/1.
            let value: Vec<u8> = value.chars().map(|c| u8::try_from(c).unwrap()).collect();
            head.extend([name.as_bytes(), b": ", &value, b"\r\n"].concat());
        }
        head.extend(b"\r\n");
        let mut stream = raw(rig.public, "").await;
        stream.write_all(&head).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.contains(" 200 "), "{from:?} {fields:?}: {head}");
        return read_until(&mut stream, "\n\n").await;
    }
    let mut client = Frames::connect(rig.public).await;
    let mut block = vec![(":method", method), (":scheme", "http"), (":path", "/x?y"), (":authority", HOST)];
    block.extend(fields);
    let end = frames::END_STREAM | frames::END_HEADERS;
    client.send(&frames::frame(frames::HEADERS, end, 1, &frames::block(&block))).await;
    let head = client.next_of(&[frames::HEADERS, frames::RESET, frames::GOAWAY]).await.unwrap();
    assert_eq!(head.status(), Some(200), "{fields:?}: {head:?}");
    let body = client.next_of(&[frames::DATA, frames::RESET, frames::GOAWAY]).await.unwrap();
    String::from_utf8(body.payload).unwrap()
}

#[tokio::test]
async fn requests_toward_a_pod() {
    for protocol in ["http1", "h2c"] {
        // Two line feeds end what a test reads.
        let pod = FakePod::start(|request| async {
            let response = lines(request).await;
            let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
            ok([&body[..], b"\n"].concat())
        })
        .await;
        let rig = warm(&pod, json!({"protocol": protocol})).await;
        for case in REQUESTS.iter().filter(|case| case.to.contains(&protocol)) {
            for from in case.from {
                let got = sent(&rig, *from, case.method, case.sent).await;
                let what = format!("{}, {from:?} to {protocol}: {got}", case.what);
                assert!(got.starts_with(&format!("{} /x?y\n", case.method)), "{what}");
                for (name, value) in case.to_pod {
                    let of_name = got.lines().filter(|line| line.starts_with(&format!("{name}: ")));
                    assert_eq!(of_name.collect::<Vec<_>>(), [format!("{name}: {value}")], "{what}");
                }
                for name in case.not_to_pod.iter().filter(|name| !case.to_pod.iter().any(|(n, _)| n == *name)) {
                    assert!(!got.contains(&format!("\n{name}: ")), "{name} is passed on: {what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn the_host_of_an_absolute_target_replaces_host() {
    let pod = FakePod::start(lines).await;
    let rig = warm(&pod, json!({})).await;
    let request = format!("GET http://{HOST}:8080/ HTTP/1.1\r\nHost: {HOST}:9999\r\nConnection: close\r\n\r\n");
    let answer = raw_answer(rig.public, &request).await;
    assert!(answer.contains(&format!("\nhost: {HOST}:8080\n")), "{answer}");
}

#[tokio::test]
async fn the_last_hop_of_max_forwards_responds_itself() {
    let pod = FakePod::start(lines).await;
    let rig = warm(&pod, json!({})).await;
    for (method, fields, expected) in [
        ("OPTIONS", "Max-Forwards: 0\r\n", "HTTP/1.1 204"),
        ("OPTIONS", "Max-Forwards: 3\r\nMax-Forwards: 0\r\n", "HTTP/1.1 204"),
        ("TRACE", "Max-Forwards: 0\r\n", "HTTP/1.1 501"),
        ("OPTIONS", "Max-Forwards: x\r\n", "HTTP/1.1 400"),
        ("OPTIONS", "Max-Forwards: +1\r\n", "HTTP/1.1 400"),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\n{fields}Connection: close\r\n\r\n");
        let answer = raw_answer(rig.public, &request).await;
        assert!(answer.starts_with(expected), "{method} {fields}: {answer}");
    }
    assert_eq!(pod.requests.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_request_that_loops_is_rejected() {
    let pod = FakePod::start(lines).await;
    let rig = warm(&pod, json!({})).await;
    for (count, looped) in [(1, false), (15, false), (16, true), (40, true)] {
        let via = ["1.1 rouse (x), 1.0 other, 2 Rouse"; 20].join(", ");
        let via = via.split(", ").filter(|v| v.contains("ouse")).take(count).collect::<Vec<_>>();
        let (first, second) = via.split_at(count / 2);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nVia: {}\r\nVia: {}\r\nConnection: close\r\n\r\n",
            first.join(","),
            second.join(" , ")
        );
        let answer = raw_answer(rig.public, &request).await;
        assert_eq!(answer.starts_with("HTTP/1.1 508"), looped, "{count}: {answer}");
        assert_eq!(answer.contains("problems/loop-detected"), looped, "{count}: {answer}");
    }
}

#[tokio::test]
async fn an_unknown_expectation_is_rejected() {
    let pod = FakePod::start(lines).await;
    let rig = warm(&pod, json!({})).await;
    for (fields, rejected) in [
        ("Expect: 100-continue\r\n", false),
        ("Expect: 100-continue\r\nExpect: 100-CONTINUE\r\n", false),
        ("Expect: x\r\n", true),
        ("Expect: 100-continue, x\r\n", true),
        ("Expect: 100-continue\r\nExpect: x=y\r\n", true),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}Connection: close\r\n\r\n");
        let answer = raw_answer(rig.public, &request).await;
        assert_eq!(answer.starts_with("HTTP/1.1 417"), rejected, "{fields}: {answer}");
    }
}

/// A pod that sends these bytes as the head of each response, with the body `hi`.
async fn pod_with_head(rig: &rig::Rig, head: &'static str) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    rig.show_as("p", "hello", running(), listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    stream.write_all(head.as_bytes()).await.ok();
                    stream.shutdown().await.ok();
                }
            });
        }
    });
}

/// A response of a pod, and what the client gets: a body, or a problem.
const RESPONSES: &[(&str, &str, Option<&str>)] = &[
    ("plain", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Some("hi")),
    ("chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", Some("hi")),
    ("chunks in capitals", "HTTP/1.1 200 OK\r\nTransfer-Encoding:  Chunked \r\n\r\n2\r\nhi\r\n0\r\n\r\n", Some("hi")),
    // The client would get coded bytes without the name of their coding.
    ("gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", None),
    (
        "gzip in a field of its own",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        None,
    ),
    ("chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", None),
    (
        "two framings",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        None,
    ),
    (
        "connection fields",
        "HTTP/1.1 200 OK\r\nConnection: close, x-gone\r\nConnection: x-gone-too\r\nX-Gone: 1\r\nX-Gone-Too: 1\r\nKeep-Alive: timeout=1\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
        Some("hi"),
    ),
    (
        "internal fields and their twins",
        "HTTP/1.1 200 OK\r\nRouse-Gone: 1\r\nrouse_gone: 1\r\nrouse.gone: 1\r\nContent-Length: 2\r\n\r\nhi",
        Some("hi"),
    ),
];

#[tokio::test]
async fn responses_toward_a_client() {
    for (what, head, expected) in RESPONSES {
        let rig = rig::Rig::start().await;
        rig.function("hello", json!({}));
        pod_with_head(&rig, head).await;
        let answer = get(rig.public, HOST, "/").await;
        match expected {
            Some(body) => assert_eq!((answer.status.as_u16(), &*answer.text()), (200, *body), "{what}"),
            None => assert_eq!(answer.json()["type"], "https://rouse.dev/problems/bad-response", "{what}"),
        }
        for name in
            ["connection", "keep-alive", "upgrade", "x-gone", "x-gone-too", "rouse-gone", "rouse_gone", "rouse.gone"]
        {
            assert!(!answer.headers.contains_key(name), "{what}: {name}");
        }
    }
}

#[tokio::test]
async fn a_pod_switches_to_a_protocol_that_was_offered_only() {
    for (offered, taken, switched) in [
        ("x, y/2", "Y/2", true),
        ("x", "x", true),
        ("x", "y", false),
        ("x, h2c", "h2c", false),
        ("x", "x, y", false),
        ("x", "", false),
    ] {
        let rig = rig::Rig::start().await;
        rig.function("hello", json!({}));
        let head = format!("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {taken}\r\n\r\n");
        pod_with_head(&rig, head.leak()).await;
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: {offered}\r\n\r\n");
        let head = read_head(&mut raw(rig.public, &request).await).await;
        assert_eq!(head.starts_with("HTTP/1.1 101"), switched, "{offered} and {taken}: {head}");
        assert_eq!(head.starts_with("HTTP/1.1 502"), !switched, "{offered} and {taken}: {head}");
    }
}
