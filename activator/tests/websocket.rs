//! Protocol upgrades.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rig::{FakePod, GENEROUS, PodBody, Rig, ok, raw, raw_answer, read_head, warm};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const HOST: &str = "hello.default.example.com";

/// Switches protocols, and then echoes bytes in upper case.
async fn shouting(mut request: Request<hyper::body::Incoming>) -> Response<PodBody> {
    let Some(protocol) = request.headers().get("upgrade").cloned() else { return ok("no upgrade") };
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        let mut buffer = [0; 64];
        while let Ok(n @ 1..) = io.read(&mut buffer).await {
            if io.write_all(&buffer[..n].to_ascii_uppercase()).await.is_err() {
                return;
            }
        }
        io.write_all(b"bye").await.ok();
        io.shutdown().await.ok();
    });
    let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", protocol);
    response.body(BodyExt::boxed(Full::default())).unwrap()
}

fn wish(protocol: &str) -> String {
    format!("GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\n\r\n")
}

async fn heard(stream: &mut TcpStream, expected: &[u8]) {
    let mut buffer = vec![0; expected.len()];
    timeout(GENEROUS, stream.read_exact(&mut buffer)).await.expect("nothing comes").unwrap();
    assert_eq!(buffer, expected);
}

#[tokio::test]
async fn early_bytes_wait_for_the_101() {
    let pod = FakePod::start(shouting).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    // Bytes that are no HTTP at all, in the same packet as the request, and after it.
    let mut stream = raw(rig.public, &(wish("any") + "\n: \u{1}early")).await;
    rig.queued("hello", 1).await;
    stream.write_all(b" and more").await.unwrap();
    assert_eq!(stream.try_read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    rig.start_pod("hello", &pod);
    let head = read_head(&mut stream).await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: any"), "{head}");
    heard(&mut stream, b"\n: \x01EARLY AND MORE").await;
    stream.write_all(b"x").await.unwrap();
    heard(&mut stream, b"X").await;
    rig.in_flight("hello", 1).await;
    stream.shutdown().await.unwrap();
    heard(&mut stream, b"bye").await;
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn a_refused_upgrade_leaves_http_as_it_was() {
    let pod = FakePod::start(|request| async move { ok(request.uri().path().to_owned()) }).await;
    let rig = warm(&pod, json!({})).await;
    for protocol in ["websocket", "h2c"] {
        let next = format!("GET /next HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let answer = raw_answer(rig.public, &(wish(protocol) + &next)).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
        assert!(answer.contains("/ws") && answer.ends_with("/next"), "{answer}");
        // What follows is validated as strictly as ever.
        let answer = raw_answer(rig.public, &(wish(protocol) + "GET / HTTP/1.1\n\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("HTTP/1.1 400"), "{answer}");
    }
}

#[tokio::test]
async fn an_idle_tunnel_ends_and_an_active_one_does_not() {
    let pod = FakePod::start(shouting).await;
    let rig = warm(&pod, json!({"timeouts": {"idle": "1s"}})).await;
    let mut stream = raw(rig.public, &wish("websocket")).await;
    read_head(&mut stream).await;
    let began = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(200));
    for _ in 0..10 {
        ticks.tick().await;
        stream.write_all(b"x").await.unwrap();
        heard(&mut stream, b"X").await;
    }
    assert!(began.elapsed() > std::time::Duration::from_millis(1500));
    rig.in_flight("hello", 1).await;
    // Closed, not reset.
    let mut rest = vec![];
    timeout(GENEROUS, stream.read_to_end(&mut rest)).await.expect("it stays open").unwrap();
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn either_side_may_close_a_tunnel() {
    let pod = FakePod::start(shouting).await;
    let rig = warm(&pod, json!({})).await;
    let mut stream = raw(rig.public, &wish("websocket")).await;
    read_head(&mut stream).await;
    rig.in_flight("hello", 1).await;
    drop(stream);
    rig.in_flight("hello", 0).await;
    let leaving = FakePod::start(|mut request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            io.write_all(b"bye").await.unwrap();
        });
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "x");
        response.body(BodyExt::boxed(Full::default())).unwrap()
    })
    .await;
    let rig = warm(&leaving, json!({})).await;
    let mut stream = raw(rig.public, &wish("x")).await;
    read_head(&mut stream).await;
    let mut rest = vec![];
    timeout(GENEROUS, stream.read_to_end(&mut rest)).await.expect("it stays open").unwrap();
    assert_eq!(rest, b"bye");
    drop(stream);
    rig.in_flight("hello", 0).await;
}
