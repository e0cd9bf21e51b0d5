//! HTTP/2 requests that are sent to a pod once more: only what the pod guarantees not to have processed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rig::*;
use rstest::rstest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const HOST: &str = "hello.default.example.com";

/// What a pod does with its second request.
#[derive(Clone, Copy, Debug)]
enum Second {
    Reset(u8),
    /// A GOAWAY whose last stream is this far below the one of the request.
    GoAway(u32),
    Close,
}

/// A pod that responds to every request but the second one.
async fn pod(second: Second) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, second, count.clone()));
        }
    });
    (port, seen)
}

/// Serves one connection; ends at its end.
async fn connection(mut stream: TcpStream, second: Second, seen: Arc<AtomicUsize>) -> Option<()> {
    stream.read_exact(&mut [0; 24]).await.ok()?;
    stream.write_all(&frames::frame(frames::SETTINGS, 0, 0, &[])).await.ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        stream.read_exact(&mut vec![0; length]).await.ok()?;
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let response = match head[3] {
            frames::SETTINGS if head[4] == 0 => frames::frame(frames::SETTINGS, 1, 0, &[]),
            frames::HEADERS if seen.fetch_add(1, Ordering::SeqCst) == 1 => match second {
                Second::Reset(code) => frames::frame(frames::RESET, 0, id, &[0, 0, 0, code]),
                Second::GoAway(below) => {
                    let last = [&(id - below).to_be_bytes()[..], &[0, 0, 0, 0]].concat();
                    stream.write_all(&frames::frame(frames::GOAWAY, 0, 0, &last)).await.ok()?;
                    return None;
                }
                Second::Close => return None,
            },
            // The indexed header `:status: 200`.
            frames::HEADERS => frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, id, &[0x88]),
            _ => continue,
        };
        stream.write_all(&response).await.ok()?;
    }
}

#[rstest]
#[case::refused_stream("GET", Second::Reset(7), 200, 3)]
#[case::refused_stream_of_a_post("POST", Second::Reset(7), 200, 3)]
#[case::go_away_below("GET", Second::GoAway(2), 200, 3)]
#[case::go_away_below_of_a_post("POST", Second::GoAway(2), 200, 3)]
#[case::go_away_at("GET", Second::GoAway(0), 502, 2)]
#[case::internal_error("GET", Second::Reset(2), 502, 2)]
#[case::cancel("GET", Second::Reset(8), 502, 2)]
#[case::close("GET", Second::Close, 502, 2)]
#[tokio::test]
async fn a_request_without_a_response(
    #[case] method: &str,
    #[case] second: Second,
    #[case] status: u16,
    #[case] times: usize,
) {
    let (port, seen) = pod(second).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({"protocol": "h2c"}));
    rig.show_as("p", "hello", running(), port);
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
    let request = format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let answer = raw_answer(rig.public, &request).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert_eq!(seen.load(Ordering::SeqCst), times);
    rig.in_flight("hello", 0).await;
}
