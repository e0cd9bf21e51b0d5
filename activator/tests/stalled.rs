//! Clients that stop taking their response.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use http::Response;
use http_body_util::{BodyExt, Full};
use rig::{FakePod, Frames, GENEROUS, Rig, frames, narrow, raw};
use rstest::rstest;
use serde_json::json;
use socket2::SockRef;
use tokio::{io::AsyncReadExt, time::timeout};

const HOST: &str = "hello.default.example.com";

/// More than all buffers between a pod and a client hold together.
const LONG: usize = 32 << 20;

async fn long() -> FakePod {
    FakePod::start(|_| async { Response::new(Full::new(vec![b'x'; LONG].into()).boxed()) }).await
}

fn get_head() -> String {
    format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

fn get_block() -> Vec<u8> {
    frames::block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", HOST)])
}

async fn started(pod: &FakePod, spec: serde_json::Value) -> Rig {
    let rig = Rig::start().await;
    rig.function("hello", spec);
    rig.start_pod("hello", pod);
    rig
}

#[rstest]
#[case::without_window(0)]
#[case::with_a_part_on_the_way(1)]
#[tokio::test]
async fn an_http_2_stream_that_is_not_read_ends_by_idle_timeout(#[case] window: u8) {
    let pod = long().await;
    let rig = started(&pod, json!({"timeouts": {"idle": "1s"}})).await;
    let mut client = Frames::connect(rig.public).await;
    // SETTINGS_INITIAL_WINDOW_SIZE
    client.send(&frames::frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, window])).await;
    client.send(&frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 1, &get_block())).await;
    let head = client.next_of(&[frames::HEADERS, frames::RESET]).await.unwrap();
    assert_eq!(head.status(), Some(200));
    for _ in 0..window {
        assert_eq!(client.next_of(&[frames::DATA, frames::RESET]).await.unwrap().kind, frames::DATA);
    }
    let reset = client.next_of(&[frames::DATA, frames::RESET]).await.unwrap();
    assert_eq!((reset.kind, reset.stream), (frames::RESET, 1));
    rig.in_flight("hello", 0).await;
    // The other streams of the connection are served.
    client.send(&frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 3, &get_block())).await;
    assert_eq!(client.next_of(&[frames::HEADERS]).await.unwrap().status(), Some(200));
}

/// The response is one part, with and without a length.
#[rstest]
#[case::known_length(true)]
#[case::chunked(false)]
#[tokio::test]
async fn a_response_that_the_library_holds_does_not_stay(#[case] sized: bool) {
    const SIZE: usize = 6 << 10;
    let pod = FakePod::start(move |_| async move {
        let whole = Full::from(vec![b'x'; SIZE]);
        // `map_frame` hides the length.
        let chunked = whole.clone().map_frame(|frame| frame).boxed();
        Response::new(if sized { whole.boxed() } else { chunked })
    })
    .await;
    let rig = started(&pod, json!({"timeouts": {"idle": "1s"}})).await;
    let mut client = Frames::connect(rig.public).await;
    client.send(&frames::frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])).await;
    client.send(&frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 1, &get_block())).await;
    assert_eq!(client.next_of(&[frames::HEADERS, frames::RESET]).await.unwrap().status(), Some(200));
    assert_eq!(client.next_of(&[frames::DATA, frames::RESET]).await.unwrap().kind, frames::DATA);
    let reset = client.next_of(&[frames::DATA, frames::RESET]).await.unwrap();
    assert_eq!((reset.kind, reset.stream), (frames::RESET, 1));
    // With a window it is complete.
    client.send(&frames::frame(frames::SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])).await;
    client.send(&frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 3, &get_block())).await;
    let mut length = 0;
    loop {
        let frame = client.next_of(&[frames::DATA, frames::RESET]).await.unwrap();
        assert_eq!((frame.kind, frame.stream), (frames::DATA, 3));
        length += frame.payload.len();
        if frame.flags & frames::END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(length, SIZE);
}

#[tokio::test]
async fn an_http_1_client_that_does_not_read_ends_by_idle_timeout() {
    let pod = long().await;
    let rig = started(&pod, json!({"timeouts": {"idle": "1s"}})).await;
    let mut client = narrow(rig.public, &get_head()).await;
    rig.in_flight("hello", 1).await;
    rig.in_flight("hello", 0).await;
    // Reset, so that the kernel does not keep what the client would never read.
    let mut rest = vec![];
    let read = timeout(GENEROUS, client.read_to_end(&mut rest)).await.expect("the connection stays open");
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn urgent_data_does_not_hide_a_disconnect() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let client = raw(rig.public, &get_head()).await;
    rig.queued("hello", 1).await;
    SockRef::from(&client).send_out_of_band(b"!").unwrap();
    drop(client);
    rig.queued("hello", 0).await;
}
