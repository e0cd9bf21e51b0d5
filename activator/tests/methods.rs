//! Methods whose requests and responses have a body only sometimes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rig::{FakePod, GENEROUS, ok, raw_answer, warm};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

const HOST: &str = "hello.default.example.com";

#[tokio::test]
async fn the_body_of_a_get_reaches_its_pod_whatever_its_framing() {
    let pod = FakePod::start(|request| async { ok(request.into_body().collect().await.unwrap().to_bytes()) }).await;
    let rig = warm(&pod, json!({})).await;
    for (method, framed) in [
        ("GET", "Content-Length: 3\r\n\r\nabc"),
        ("GET", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
        ("DELETE", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n{framed}");
        let answer = raw_answer(rig.public, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("abc"), "{request}\n{answer}");
    }
}

#[tokio::test]
async fn a_head_over_http2_gets_no_body_even_from_the_activator_itself() {
    let pod = FakePod::saying("hello").await;
    let rig = warm(&pod, json!({})).await;
    let io = TokioIo::new(TcpStream::connect(rig.public).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for (host, status) in [(HOST, StatusCode::OK), ("nobody.default.example.com", StatusCode::NOT_FOUND)] {
        let request = Request::head(format!("http://{host}/")).body(Empty::<Bytes>::new()).unwrap();
        let response = timeout(GENEROUS, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!(response.status(), status);
        assert_ne!(response.headers()["content-length"], "0", "{host}");
        // A body would be a protocol error, which the client reports here.
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "", "{host}");
    }
}
