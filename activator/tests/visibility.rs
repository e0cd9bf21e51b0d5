//! A cluster function is not reachable from the ingress, whatever a request claims about its host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rig::{FakePod, GENEROUS, Rig, get, raw_answer};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

/// Every name that the function has or once had, in several spellings.
const FORGED: [&str; 14] = [
    "inside.default.example.com",
    "INSIDE.default.EXAMPLE.com:80",
    "inside.default.example.com.",
    "inside.example.org",
    "api.example.org",
    "old-inside.default.example.com",
    "inside",
    "inside.default",
    "inside.default.svc",
    "inside.default.svc.cluster.local",
    "inside.default.svc.cluster.local.:8081",
    "old-inside.default",
    "old-inside.default.svc.cluster.local",
    "inside.default.svc.example.com",
];

async fn rig(inside: &FakePod, outside: &FakePod) -> Rig {
    let rig = Rig::start().await;
    let spec = |visibility: &str| {
        json!({
            "visibility": visibility, "hosts": ["inside.example.org"],
            "routes": [{"host": "api.example.org", "path": "/"}],
            "traffic": [{"revision": "inside-00001", "percent": 100, "tag": "old"}],
        })
    };
    // It was public once: nothing of that may be left.
    for visibility in ["Public", "Cluster"] {
        let mut function = rig::function("inside", "uid-1", spec(visibility), &[("inside-00001", 100)]);
        function["status"]["traffic"][0]["tag"] = json!("old");
        rig.apply(function);
    }
    rig.function("outside", json!({}));
    rig.start_pod("inside", inside);
    rig.start_pod("outside", outside);
    rig
}

#[tokio::test]
async fn no_host_reaches_a_cluster_function_from_the_ingress() {
    let (inside, outside) = (FakePod::saying("reached").await, FakePod::saying("reached").await);
    let rig = rig(&inside, &outside).await;
    for name in ["inside.default", "inside.default.svc", "old-inside.default.svc.cluster.local", "outside.default"] {
        assert_eq!(get(rig.cluster, name, "/").await.text(), "reached", "{name}");
    }
    assert_eq!(get(rig.public, "outside.default.example.com", "/").await.text(), "reached");
    let requests = || [&inside, &outside].map(|pod| pod.requests.load(Ordering::SeqCst));
    let reached = requests();
    let own = "outside.default.example.com";
    for host in FORGED {
        assert_eq!(get(rig.public, host, "/").await.status, 404, "{host}");
        // Absolute form, with the same host, and with that of another function.
        let plain = host.split(':').next().unwrap();
        let absolute = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert!(raw_answer(rig.public, &absolute).await.starts_with("HTTP/1.1 404"), "{host}");
        for (target, named) in [(host, own), (own, host)] {
            let two = format!("GET http://{target}/ HTTP/1.1\r\nHost: {named}\r\nConnection: close\r\n\r\n");
            assert!(raw_answer(rig.public, &two).await.starts_with("HTTP/1.1 400"), "{host}");
        }
        let both = format!("GET / HTTP/1.1\r\nHost: {own}\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert!(raw_answer(rig.public, &both).await.starts_with("HTTP/1.1 400"), "{host}");
        let old = format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n");
        assert!(raw_answer(rig.public, &old).await.contains(" 404 "), "{host}");
        // HTTP/2, by its pseudo-header.
        let io = TokioIo::new(TcpStream::connect(rig.public).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(format!("http://{plain}/")).body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(timeout(GENEROUS, sender.send_request(request)).await.unwrap().unwrap().status(), 404, "{host}");
    }
    assert_eq!(requests(), reached, "one of them came through");
}

#[tokio::test]
async fn forwarded_host_headers_do_not_affect_routing() {
    let (inside, outside) = (FakePod::saying("inside").await, FakePod::saying("outside").await);
    let rig = Rig::start().await;
    rig.function("inside", json!({"visibility": "Cluster"}));
    rig.function("outside", json!({}));
    rig.start_pod("inside", &inside);
    rig.start_pod("outside", &outside);
    for header in ["X-Forwarded-Host", "X-Original-Host", "X-Host", "Forwarded", "X-Original-URL", "Rouse-Host"] {
        for host in ["inside.default", "inside.default.example.com", "host=inside.default.svc.cluster.local"] {
            let request = format!(
                "GET / HTTP/1.1\r\nHost: outside.default.example.com\r\n{header}: {host}\r\nConnection: close\r\n\r\n"
            );
            let answer = raw_answer(rig.public, &request).await;
            assert!(answer.ends_with("outside"), "{header}: {host}\n{answer}");
        }
    }
}
