//! HTTP/2 uploads: a small window while a request is queued, a large one while its pod reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rig::{FakePod, Frames, GENEROUS, Rig, frames, ok};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

const HOST: &str = "hello.default.example.com";
const WINDOW: usize = 16 << 10;
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
const WINDOW_UPDATE: u8 = 8;

/// A head without the end of its stream.
fn post(stream: u32, host: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", host)];
    let block = frames::block(&[&fields[..], more].concat());
    frames::frame(frames::HEADERS, frames::END_HEADERS, stream, &block)
}

/// Reads frames until `until` returns true, and returns the increments of the windows of this stream.
async fn windows_of(client: &mut Frames, stream: u32, mut until: impl FnMut(&frames::Frame, usize) -> bool) -> usize {
    let mut sum = 0;
    loop {
        let frame = client.next().await.expect("the connection ends");
        if frame.kind == WINDOW_UPDATE && frame.stream == stream {
            sum += u32::from_be_bytes(frame.payload[..].try_into().unwrap()) as usize;
        }
        if until(&frame, sum) {
            return sum;
        }
    }
}

#[tokio::test]
async fn the_window_is_small_in_the_queue_and_grows_while_the_pod_reads() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.function("cold", json!({}));
    let mut client = Frames::connect(rig.public).await;
    let settings = client.next_of(&[frames::SETTINGS]).await.unwrap();
    let announced = settings.payload.chunks(6).find(|setting| setting[..2] == INITIAL_WINDOW_SIZE).unwrap();
    assert_eq!(u32::from_be_bytes(announced[2..].try_into().unwrap()) as usize, WINDOW);
    client.send(&frames::frame(frames::SETTINGS, 1, 0, &[])).await;
    // A tag of the client's own changes nothing.
    client.send(&post(1, HOST, &[("rouse-stream", "3")])).await;
    client.send(&post(3, "cold.default.example.com", &[("rouse-stream", "1")])).await;
    for stream in [1, 3] {
        client.send(&frames::frame(frames::DATA, 0, stream, &[b'x'; WINDOW])).await;
    }
    rig.queued("hello", 1).await;
    rig.queued("cold", 1).await;
    client.send(&frames::frame(frames::PING, 0, 0, &[0; 8])).await;
    let mut others = 0;
    let pong = |frame: &frames::Frame, _| {
        others += usize::from(frame.kind == WINDOW_UPDATE && frame.stream > 0);
        frame.kind == frames::PING
    };
    assert_eq!(windows_of(&mut client, 1, pong).await, 0, "the window of a queued request");
    assert_eq!(others, 0);

    let pod = FakePod::start(|request| async move {
        assert!(!request.headers().contains_key("rouse-stream"));
        ok(request.into_body().collect().await.unwrap().to_bytes().len().to_string())
    })
    .await;
    rig.start_pod("hello", &pod);
    let mut others = 0;
    let mut allowed = WINDOW;
    let mut sent = WINDOW;
    // The client sends what it may. How fast the window grows depends on how fast the pod reads.
    while sent < 1 << 20 {
        allowed += windows_of(&mut client, 1, |frame, sum| {
            assert!(![frames::RESET, frames::GOAWAY].contains(&frame.kind), "{frame:?}");
            others += usize::from(frame.kind == WINDOW_UPDATE && frame.stream == 3);
            sum > 0
        })
        .await;
        for piece in vec![b'x'; allowed - sent].chunks(WINDOW) {
            client.send(&frames::frame(frames::DATA, 0, 1, piece)).await;
        }
        sent = allowed;
    }
    assert!(allowed > WINDOW + (100 << 10), "{allowed}");
    assert_eq!(others, 0, "the other stream is queued still");
    client.send(&frames::frame(frames::DATA, frames::END_STREAM, 1, b"")).await;
    let mut body = String::new();
    while body.is_empty() {
        let frame = client.next_of(&[frames::DATA, frames::RESET, frames::GOAWAY]).await.unwrap();
        assert_eq!((frame.kind, frame.stream), (frames::DATA, 1));
        body = String::from_utf8(frame.payload).unwrap();
    }
    assert_eq!(body, sent.to_string());
}

/// Bytes arrive whole and in order, whatever the windows do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_uploads_arrive_whole() {
    const LENGTH: usize = 12 << 20;
    let content = |n: usize| -> Vec<u8> { (0..LENGTH / 8).flat_map(|i| ((i * 31 + n) as u64).to_be_bytes()).collect() };
    for protocol in ["http1", "h2c"] {
        let pod = FakePod::start(|request| async move {
            let sent = request.into_body().collect().await.unwrap();
            let trailer = sent.trailers().is_some();
            assert!(!trailer);
            ok(sent.to_bytes())
        })
        .await;
        let rig = Rig::start().await;
        rig.function("hello", json!({"protocol": protocol}));
        rig.start_pod("hello", &pod);
        let io = TokioIo::new(TcpStream::connect(rig.public).await.unwrap());
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let mut uploads = tokio::task::JoinSet::new();
        for n in 0..3 {
            let mut sender = sender.clone();
            uploads.spawn(async move {
                let body = Full::new(bytes::Bytes::from(content(n)));
                let request = Request::post(format!("http://{HOST}/")).body(body).unwrap();
                let response = timeout(GENEROUS, sender.send_request(request)).await.expect("no response").unwrap();
                let echoed =
                    timeout(GENEROUS, response.into_body().collect()).await.expect("no end").unwrap().to_bytes();
                assert!(echoed == content(n), "{n}: {} bytes", echoed.len());
            });
        }
        uploads.join_all().await;
        rig.in_flight("hello", 0).await;
    }
}
