//! Graceful shutdown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rig::{Client, FakePod, Frames, GENEROUS, Rig, frames, get, ok, raw, read_head};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};

const HOST: &str = "hello.default.example.com";

async fn until_refused(rig: &Rig) {
    timeout(GENEROUS, async {
        while TcpStream::connect(rig.public).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it goes on accepting");
}

#[tokio::test]
async fn requests_in_flight_end_before_the_process() {
    let mut rig = Rig::with(&["--shutdown-delay=300ms"]).await;
    rig.function("hello", json!({}));
    rig.function("cold", json!({}));
    let go = Arc::new(Notify::new());
    let pod = FakePod::start({
        let go = go.clone();
        move |request| {
            let go = go.clone();
            async move {
                if request.uri().path() == "/slow" {
                    go.notified().await;
                }
                ok("hi")
            }
        }
    })
    .await;
    rig.start_pod("hello", &pod);
    let mut kept = Client::connect(rig.public).await;
    assert_eq!(kept.get(HOST, "/").await.status, 200);
    let slow = tokio::spawn(get(rig.public, HOST, "/slow"));
    let parked = tokio::spawn(get(rig.public, "cold.default.example.com", "/"));
    rig.in_flight("hello", 1).await;
    rig.queued("cold", 1).await;
    assert_eq!(get(rig.admin, "admin", "/readyz").await.status, 200);

    rig.stop();
    timeout(GENEROUS, async { while get(rig.admin, "admin", "/readyz").await.status != 503 {} }).await.unwrap();
    assert_eq!(get(rig.public, HOST, "/").await.status, 200, "it still accepts for the delay");
    until_refused(&rig).await;

    let cold = FakePod::saying("woken").await;
    rig.start_pod("cold", &cold);
    let answer = parked.await.unwrap();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("woken", "close"));
    // The demand of what is left is reported to the end.
    rig.in_flight("hello", 1).await;
    assert!(!rig.ended.as_ref().unwrap().is_finished());
    go.notify_one();
    assert_eq!(slow.await.unwrap().text(), "hi");
    timeout(GENEROUS, rig.ended.take().unwrap()).await.expect("it does not end").unwrap().unwrap();
}

#[tokio::test]
async fn queued_requests_are_rejected_at_shutdown() {
    let mut rig = Rig::with(&["--shutdown-delay=0s", "--shutdown-grace=2s"]).await;
    rig.function("hello", json!({}));
    let parked = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    rig.stop();
    let answer = parked.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.json()["type"].as_str().unwrap()),
        (503, "https://rouse.dev/problems/shutting-down")
    );
    assert_eq!(answer.header("retry-after"), "1");
    timeout(Duration::from_secs(10), rig.ended.take().unwrap()).await.expect("it does not end").unwrap().unwrap();
}

#[tokio::test]
async fn the_grace_period_bounds_the_shutdown() {
    let mut rig = Rig::with(&["--shutdown-delay=0s", "--shutdown-grace=1s"]).await;
    rig.function("hello", json!({}));
    let pod = FakePod::start(|_| std::future::pending()).await;
    rig.start_pod("hello", &pod);
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.in_flight("hello", 1).await;
    rig.stop();
    timeout(Duration::from_secs(10), rig.ended.take().unwrap()).await.expect("it does not end").unwrap().unwrap();
    call.abort();
}

async fn until_leaving(rig: &Rig) {
    timeout(GENEROUS, async { while get(rig.admin, "admin", "/readyz").await.status != 503 {} }).await.unwrap();
}

#[tokio::test]
async fn idle_connections_are_closed_by_a_response() {
    let mut rig = Rig::with(&["--shutdown-delay=1s"]).await;
    rig.function("hello", json!({}));
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    let mut kept = Client::connect(rig.public).await;
    assert_eq!(kept.get(HOST, "/").await.header("connection"), "");
    rig.stop();
    until_leaving(&rig).await;
    let last = kept.get(HOST, "/").await;
    assert_eq!((last.status.as_u16(), last.header("connection")), (200, "close"));
    // New requests are still served.
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    timeout(GENEROUS, rig.ended.take().unwrap()).await.expect("it does not end").unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_has_begun_is_served() {
    let mut rig = Rig::with(&["--shutdown-delay=0s"]).await;
    rig.function("hello", json!({}));
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    let silent = TcpStream::connect(rig.public).await.unwrap();
    let mut begun = raw(rig.public, "GET / HTTP/1.1\r\nHost: ").await;
    // Both are accepted when a later one is served.
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    rig.stop();
    until_refused(&rig).await;
    begun.write_all(format!("{HOST}\r\n\r\n").as_bytes()).await.unwrap();
    let head = read_head(&mut begun).await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
    drop(silent);
    timeout(GENEROUS, rig.ended.take().unwrap()).await.expect("it does not end").unwrap().unwrap();
}

#[tokio::test]
async fn http_2_gets_goaway_and_its_requests_end() {
    let mut rig = Rig::with(&["--shutdown-delay=0s"]).await;
    rig.function("hello", json!({}));
    rig.function("cold", json!({}));
    let go = Arc::new(Notify::new());
    let pod = FakePod::start({
        let go = go.clone();
        move |_| {
            let go = go.clone();
            async move {
                go.notified().await;
                ok("hi")
            }
        }
    })
    .await;
    rig.start_pod("hello", &pod);
    let io = TokioIo::new(TcpStream::connect(rig.public).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut call = |host: &str| {
        let request = Request::get(format!("http://{host}/")).body(Full::<Bytes>::default()).unwrap();
        tokio::spawn(sender.send_request(request))
    };
    let (slow, parked) = (call(HOST), call("cold.default.example.com"));
    rig.in_flight("hello", 1).await;
    rig.queued("cold", 1).await;
    let mut told = Frames::connect(rig.public).await;
    assert!(told.next_of(&[frames::SETTINGS]).await.is_some());
    rig.stop();
    // No stream is aborted: any last-stream id will do.
    let goaway = told.next_of(&[frames::GOAWAY]).await.unwrap();
    assert_eq!(goaway.payload[4..8], [0, 0, 0, 0]);
    until_refused(&rig).await;
    let cold = FakePod::saying("woken").await;
    rig.start_pod("cold", &cold);
    assert_eq!(
        timeout(GENEROUS, parked).await.unwrap().unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(),
        "woken"
    );
    go.notify_one();
    assert_eq!(
        timeout(GENEROUS, slow).await.unwrap().unwrap().unwrap().into_body().collect().await.unwrap().to_bytes(),
        "hi"
    );
    timeout(GENEROUS, connection).await.expect("the connection stays").unwrap().unwrap();
    drop(told);
    timeout(GENEROUS, rig.ended.take().unwrap()).await.expect("it does not end").unwrap().unwrap();
}

#[tokio::test]
async fn a_tunnel_lasts_through_the_grace_period() {
    let mut rig = Rig::with(&["--shutdown-delay=0s"]).await;
    rig.function("hello", json!({}));
    let pod = FakePod::start(|mut request| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut buffer = [0; 16];
            while let Ok(n @ 1..) = io.read(&mut buffer).await {
                io.write_all(&buffer[..n]).await.unwrap();
            }
        });
        let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "x");
        response.body(Full::default().boxed()).unwrap()
    })
    .await;
    rig.start_pod("hello", &pod);
    let wish = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    let mut tunnel = raw(rig.public, &wish).await;
    assert!(read_head(&mut tunnel).await.starts_with("HTTP/1.1 101"));
    rig.stop();
    until_refused(&rig).await;
    tunnel.write_all(b"still").await.unwrap();
    let mut echo = [0; 5];
    timeout(GENEROUS, tunnel.read_exact(&mut echo)).await.unwrap().unwrap();
    assert!(!rig.ended.as_ref().unwrap().is_finished());
    drop(tunnel);
    timeout(GENEROUS, rig.ended.take().unwrap()).await.expect("it does not end").unwrap().unwrap();
}

#[tokio::test]
async fn connections_that_wait_to_be_accepted_are_served() {
    let mut rig = Rig::with(&["--shutdown-delay=0s", "--max-connections=1"]).await;
    rig.function("hello", json!({}));
    let go = Arc::new(Notify::new());
    let pod = FakePod::start({
        let go = go.clone();
        move |request| {
            let go = go.clone();
            async move {
                if request.uri().path() == "/slow" {
                    go.notified().await;
                }
                ok("hi")
            }
        }
    })
    .await;
    rig.start_pod("hello", &pod);
    let slow = tokio::spawn(get(rig.public, HOST, "/slow"));
    rig.in_flight("hello", 1).await;
    let mut queued = vec![];
    for _ in 0..20 {
        queued.push(raw(rig.public, &format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await);
    }
    rig.stop();
    until_refused(&rig).await;
    for mut client in queued {
        let head = read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    go.notify_one();
    assert_eq!(slow.await.unwrap().status, 200);
    timeout(GENEROUS, rig.ended.take().unwrap()).await.expect("it does not end").unwrap().unwrap();
}
