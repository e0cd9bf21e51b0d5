//! Whose statements about the origin of a request are passed on, by listener and by peer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::net::SocketAddr;

use http::Request;
use http_body_util::{BodyExt, Full};
use rig::{Client, FakePod, Frames, Rig, frames, ok, raw_answer};
use serde_json::{Value, json};

const HOST: &str = "hello.default.example.com";

/// An activator with these flags whose function responds with the request's fields.
async fn echo(flags: &[&str]) -> (Rig, FakePod) {
    let pod = FakePod::start(|request| async move {
        let (parts, body) = request.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let fields = |map: &http::HeaderMap| -> serde_json::Map<String, Value> {
            map.iter().map(|(n, v)| (n.to_string(), json!(String::from_utf8_lossy(v.as_bytes())))).collect()
        };
        ok(json!({"head": fields(&parts.headers), "trailers": fields(&trailers)}).to_string())
    })
    .await;
    let rig = Rig::with(flags).await;
    rig.function("hello", json!({}));
    rig.start_pod("hello", &pod);
    (rig, pod)
}

/// Statements about the origin of a request.
const CLAIMS: &[(&str, &str)] = &[
    ("forwarded", "for=203.0.113.7;proto=https"),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-host", "evil.example"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-port", "443"),
    ("x-forwarded-client-cert", "Subject=admin"),
    ("x-forwarded-user", "admin"),
    ("x-request-id", "abc-1"),
    ("x-real-ip", "203.0.113.7"),
    ("true-client-ip", "203.0.113.7"),
    ("client-ip", "203.0.113.7"),
    ("x-client-ip", "203.0.113.7"),
];

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn told(to: SocketAddr, host: &str) -> Value {
    let mut request = Request::get("/").header("host", host).header("traceparent", TRACE);
    for (name, value) in CLAIMS {
        request = request.header(*name, *value);
    }
    let answer = Client::connect(to).await.send(request.body(Full::default().boxed()).unwrap()).await;
    assert_eq!(answer.status, 200);
    answer.json()["head"].clone()
}

#[tokio::test]
async fn claims_of_an_untrusted_peer_are_replaced() {
    // No proxy is trusted by default, on any listener; and a list trusts its own listener only.
    let trusted = "--trusted-proxies=10.0.0.0/8,2001:db8::/32";
    for (flags, cluster) in [(&[][..], false), (&[trusted][..], false), (&["--trusted-proxies=127.0.0.1"][..], true)] {
        let (rig, _pod) = echo(flags).await;
        let (to, host) = if cluster { (rig.cluster, "hello.default") } else { (rig.public, HOST) };
        let head = told(to, host).await;
        for (name, value) in [
            ("forwarded", format!("for=127.0.0.1;host=\"{host}\";proto=http")),
            ("x-forwarded-for", "127.0.0.1".to_owned()),
            ("x-forwarded-host", host.to_owned()),
            ("x-forwarded-proto", "http".to_owned()),
            // A trace identifies nobody, and a broken one is of no use: it goes on.
            ("traceparent", TRACE.to_owned()),
        ] {
            assert_eq!(head[name], json!(value), "{flags:?} {name}");
        }
        assert_eq!(head["x-request-id"].as_str().map(str::len), Some(32), "{flags:?}");
        for (name, value) in CLAIMS {
            assert_ne!(head[*name], json!(value), "{flags:?} {name}");
        }
        for gone in ["x-forwarded-port", "x-forwarded-client-cert", "x-forwarded-user", "x-real-ip", "true-client-ip"] {
            assert_eq!(head[gone], Value::Null, "{flags:?} {gone}");
        }
    }
}

#[tokio::test]
async fn claims_of_a_trusted_peer_are_continued() {
    for (flag, cluster) in [
        ("--trusted-proxies=192.0.2.0/24,127.0.0.0/8", false),
        ("--trusted-proxies=private", false),
        ("--trusted-proxies-cluster=127.0.0.1", true),
    ] {
        let (rig, _pod) = echo(&[flag]).await;
        let (to, host) = if cluster { (rig.cluster, "hello.default") } else { (rig.public, HOST) };
        let head = told(to, host).await;
        for (name, value) in [
            ("forwarded", format!("for=203.0.113.7;proto=https, for=127.0.0.1;host=\"{host}\";proto=https")),
            ("x-forwarded-for", "203.0.113.7, 127.0.0.1".to_owned()),
            // The host that was routed, whoever says what.
            ("x-forwarded-host", host.to_owned()),
            ("x-forwarded-proto", "https".to_owned()),
            ("x-forwarded-port", "443".to_owned()),
            ("x-forwarded-client-cert", "Subject=admin".to_owned()),
            ("x-request-id", "abc-1".to_owned()),
            ("x-real-ip", "203.0.113.7".to_owned()),
            ("traceparent", TRACE.to_owned()),
        ] {
            assert_eq!(head[name], json!(value), "{flag} {name}");
        }
    }
}

#[tokio::test]
async fn the_https_redirect_believes_trusted_proxies_only() {
    for (flags, status) in [
        (&["--https-redirect"][..], "308"),
        (&["--https-redirect", "--trusted-proxies=10.0.0.0/8"][..], "308"),
        (&["--https-redirect", "--trusted-proxies=127.0.0.1/32"][..], "200"),
    ] {
        let (rig, _pod) = echo(flags).await;
        let request =
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n");
        let answer = raw_answer(rig.public, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{flags:?}: {answer}");
    }
}

/// Names that servers read as a name which Rouse sets or removes: CGI, WSGI, PHP and Rack map `-`, `_` and more to one
/// character.
const TWINS: &[&str] = &[
    "rouse_mirror",
    "rouse.mirror",
    "rouse-mirror_x",
    "rouse~mirror",
    "x_forwarded_for",
    "x.forwarded.for",
    "x-forwarded_host",
    "x_forwarded-proto",
    "x_forwarded_user",
    "x_request_id",
    "x_real_ip",
    "true_client_ip",
    "content_length",
    "transfer_encoding",
    "proxy_authorization",
    "keep_alive",
    "max_forwards",
];

#[tokio::test]
async fn twins_of_reserved_names_are_removed_from_heads_and_trailers() {
    // Of a trusted peer too: it sends the names themselves.
    let (rig, _pod) = echo(&["--trusted-proxies=127.0.0.0/8"]).await;
    let fields = |names: &[&str]| names.iter().map(|name| format!("{name}: forged\r\n")).collect::<String>();
    let innocent = ["my_header", "x.y", "x_forward", "rouse", "x_rouse_mirror"];
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nTrailer: {}\r\nTransfer-Encoding: chunked\r\n{}{}\r\n2\r\nab\r\n0\r\n{}{}\r\n",
        [TWINS, &innocent].concat().join(", "),
        fields(TWINS),
        fields(&innocent),
        fields(TWINS),
        fields(&innocent),
    );
    let answer = raw_answer(rig.public, &request).await;
    let body: Value = serde_json::from_str(&answer[answer.find("\r\n\r\n").unwrap() + 4..]).unwrap();
    for place in ["head", "trailers"] {
        for name in TWINS {
            assert_eq!(body[place][*name], Value::Null, "{place}: {name}");
        }
        for name in innocent {
            assert_eq!(body[place][name], "forged", "{place}: {name}");
        }
    }
    // HTTP/2 is cleaned by the same code.
    let mut client = Frames::connect(rig.public).await;
    let mut block = vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", HOST)];
    block.extend(TWINS.iter().map(|name| (*name, "forged")));
    let end = frames::END_STREAM | frames::END_HEADERS;
    client.send(&frames::frame(frames::HEADERS, end, 1, &frames::block(&block))).await;
    let body = client.next_of(&[frames::DATA, frames::RESET, frames::GOAWAY]).await.unwrap();
    let body = String::from_utf8(body.payload).unwrap();
    assert!(body.contains("\"head\"") && !body.contains("forged"), "{body}");
}

#[tokio::test]
async fn trailers_claim_nothing_about_the_origin() {
    let (rig, _pod) = echo(&["--trusted-proxies=127.0.0.0/8"]).await;
    let claims: String = CLAIMS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let names: String = CLAIMS.iter().map(|(name, _)| format!("{name}, ")).collect();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nTrailer: {names}via, max-forwards, x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n{claims}via: 1.1 x\r\nmax-forwards: 1\r\nx-sum: 1\r\n\r\n"
    );
    let answer = raw_answer(rig.public, &request).await;
    let body: Value = serde_json::from_str(&answer[answer.find("\r\n\r\n").unwrap() + 4..]).unwrap();
    assert_eq!(body["trailers"], json!({"x-sum": "1"}));
}
