//! HTTP/2 with prior knowledge on either side: translation to and from HTTP/1.1, and gRPC.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rig::{Client, FakePod, Frames, GENEROUS, PodBody, Rig, by_hand, frames, ok, warm};
use serde_json::json;
use tokio::{net::TcpStream, time::timeout};

const HOST: &str = "hello.default.example.com";

type Sent = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn connect(to: SocketAddr) -> SendRequest<Sent> {
    let io = TokioIo::new(TcpStream::connect(to).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn trailers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
}

/// Echoes the body, and the trailer as a trailer.
async fn echo(request: Request<Incoming>) -> Response<PodBody> {
    let version = format!("{:?}", request.version());
    let collected = request.into_body().collect().await.unwrap();
    let mut back = trailers(&[("rouse-inside", "1"), ("x-end", "1")]);
    if let Some(sum) = collected.trailers().and_then(|t| t.get("x-sum")) {
        back.insert("x-back", sum.clone());
    }
    let frames = [Frame::data(collected.to_bytes()), Frame::trailers(back)].map(Ok::<_, Infallible>);
    let body = BodyExt::boxed(StreamBody::new(futures::stream::iter(frames)));
    Response::builder().header("trailer", "x-back, x-end").header("x-version", version).body(body).unwrap()
}

#[tokio::test]
async fn trailers_pass_both_ways_between_all_versions() {
    for (protocol, version) in [("http1", "HTTP/1.1"), ("h2c", "HTTP/2.0")] {
        let pod = FakePod::start(echo).await;
        let rig = warm(&pod, json!({"protocol": protocol})).await;
        for from_h2 in [true, false] {
            let (sender, body) = by_hand();
            let sending = tokio::spawn(async move {
                sender.send(Frame::data("data".into())).await.unwrap();
                let sent = trailers(&[("x-sum", "42"), ("rouse-forged", "1"), ("host", "other")]);
                sender.send(Frame::trailers(sent)).await.unwrap();
            });
            let uri = if from_h2 { format!("http://{HOST}/") } else { "/".to_owned() };
            let request = Request::post(uri).header("te", "trailers").header("trailer", "x-sum");
            let (parts, body) = if from_h2 {
                let request = request.body(body).unwrap();
                timeout(GENEROUS, connect(rig.public).await.send_request(request)).await.unwrap().unwrap()
            } else {
                let request = request.header("host", HOST).body(body).unwrap();
                Client::connect(rig.public).await.begin(request).await
            }
            .into_parts();
            sending.await.unwrap();
            let body = timeout(GENEROUS, body.collect()).await.unwrap().unwrap();
            let back = body.trailers().cloned().unwrap_or_default();
            let name = format!("{protocol} from h2 {from_h2}");
            assert_eq!(parts.headers["x-version"], version, "{name}");
            assert_eq!(
                (&back["x-back"], &back["x-end"]),
                (&HeaderValue::from_static("42"), &HeaderValue::from_static("1")),
                "{name}"
            );
            assert_eq!(back.get("rouse-inside"), None, "{name}");
            assert_eq!(body.to_bytes(), "data", "{name}");
            // No HTTP/1 header is left in an HTTP/2 response.
            assert!(
                !from_h2
                    || ["connection", "transfer-encoding", "keep-alive"]
                        .iter()
                        .all(|n| !parts.headers.contains_key(*n))
            );
        }
        rig.in_flight("hello", 0).await;
    }
}

#[tokio::test]
async fn parked_streams_are_served_and_a_reset_leaves_the_queue() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let mut client = Frames::connect(rig.public).await;
    let block = frames::block(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", HOST)]);
    for stream in [1, 3, 5] {
        client.send(&frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, stream, &block)).await;
    }
    rig.queued("hello", 3).await;
    client.send(&frames::frame(frames::RESET, 0, 3, &[0, 0, 0, 8])).await;
    rig.queued("hello", 2).await;
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    let mut answered = vec![];
    for _ in 0..2 {
        let head = client.next_of(&[frames::HEADERS, frames::GOAWAY]).await.unwrap();
        assert_eq!(head.status(), Some(200));
        answered.push(head.stream);
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 5]);
    // The end of a connection aborts all its queued requests.
    rig.function("cold", json!({}));
    let cold = frames::block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "cold.default.example.com"),
    ]);
    client.send(&frames::frame(frames::HEADERS, frames::END_STREAM | frames::END_HEADERS, 7, &cold)).await;
    rig.queued("cold", 1).await;
    drop(client);
    rig.queued("cold", 0).await;
}

/// A gRPC call as a gRPC library makes it.
fn call(method: &str, body: Sent) -> Request<Sent> {
    Request::post(format!("http://{HOST}/test.Service/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S")
        .body(body)
        .unwrap()
}

/// A service with a method of each kind; each message is one frame.
async fn service(request: Request<Incoming>) -> Response<PodBody> {
    assert_eq!(request.headers()["te"], "trailers");
    assert!(request.headers().contains_key("grpc-timeout"));
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let answer = Response::builder().header("content-type", "application/grpc");
    if method == "Fails" {
        // Trailers-only: a response that is a single head.
        return answer
            .header("grpc-status", "5")
            .header("grpc-message", "no such thing")
            .body(Full::default().boxed())
            .unwrap();
    }
    let (sender, body) = by_hand();
    tokio::spawn(async move {
        let mut messages = request.into_body();
        match method.as_str() {
            "Server" => {
                messages.collect().await.unwrap();
                for word in ["one", "two", "three"] {
                    sender.send(Frame::data(word.into())).await.unwrap();
                }
            }
            "Bidi" => {
                while let Some(Ok(frame)) = messages.frame().await {
                    if sender.send(frame).await.is_err() {
                        return;
                    }
                }
            }
            _ => {
                let all = messages.collect().await.unwrap().to_bytes();
                sender.send(Frame::data(all)).await.unwrap();
            }
        }
        sender.send(Frame::trailers(trailers(&[("grpc-status", "0")]))).await.ok();
    });
    answer.body(body).unwrap()
}

#[tokio::test]
async fn grpc_cold_and_warm() {
    let pod = FakePod::start(service).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({"protocol": "h2c"}));
    let mut client = connect(rig.public).await;
    for cold in [true, false] {
        // Unary.
        let unary = tokio::spawn(client.send_request(call("Unary", Full::from("ask").boxed())));
        if cold {
            rig.queued("hello", 1).await;
            rig.start_pod("hello", &pod);
        }
        let answer = timeout(GENEROUS, unary).await.unwrap().unwrap().unwrap();
        assert_eq!(answer.headers()["content-type"], "application/grpc");
        let body = answer.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), "ask");
        // The client streams.
        let (sender, body) = by_hand();
        let answering = tokio::spawn(client.send_request(call("Client", body)));
        for word in ["a", "b", "c"] {
            sender.send(Frame::data(word.into())).await.unwrap();
        }
        drop(sender);
        let body = timeout(GENEROUS, answering).await.unwrap().unwrap().unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "abc");
        // The server streams.
        let answer = client.send_request(call("Server", Full::default().boxed())).await.unwrap();
        let body = timeout(GENEROUS, answer.into_body().collect()).await.unwrap().unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), "onetwothree");
        // Bidirectional streaming, one message at a time.
        let (sender, body) = by_hand();
        let mut answer = timeout(GENEROUS, client.send_request(call("Bidi", body))).await.unwrap().unwrap().into_body();
        for word in ["one", "two", "three"] {
            sender.send(Frame::data(word.into())).await.unwrap();
            let frame = timeout(GENEROUS, answer.frame()).await.unwrap().unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), word);
            rig.in_flight("hello", 1).await;
        }
        drop(sender);
        let end = timeout(GENEROUS, answer.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(end.into_trailers().unwrap()["grpc-status"], "0");
        // Trailers only.
        let answer = client.send_request(call("Fails", Full::default().boxed())).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()["grpc-status"]), (200, &HeaderValue::from_static("5")));
        assert!(timeout(GENEROUS, answer.into_body().collect()).await.unwrap().unwrap().to_bytes().is_empty());
        rig.in_flight("hello", 0).await;
    }
    // A client that cancels at its deadline aborts the request in the pod.
    let mut client = Frames::connect(rig.public).await;
    let path = "/test.Service/Bidi";
    let block = frames::block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", HOST),
        ("te", "trailers"),
        ("grpc-timeout", "5S"),
    ]);
    client.send(&frames::frame(frames::HEADERS, frames::END_HEADERS, 1, &block)).await;
    assert!(client.next_of(&[frames::HEADERS]).await.is_some());
    rig.in_flight("hello", 1).await;
    client.send(&frames::frame(frames::RESET, 0, 1, &[0, 0, 0, 8])).await;
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn local_responses_are_valid_http_2() {
    let rig = Rig::start().await;
    let mut client = connect(rig.public).await;
    for method in ["GET", "HEAD", "POST"] {
        let request =
            Request::builder().method(method).uri("http://nobody.example.com/").body(Full::from("x").boxed()).unwrap();
        let answer = timeout(GENEROUS, client.send_request(request)).await.unwrap().unwrap();
        assert_eq!((answer.status().as_u16(), answer.headers().contains_key("connection")), (404, false));
    }
    let pod = FakePod::start(|_| async { ok("hi") }).await;
    rig.function("hello", json!({}));
    rig.start_pod("hello", &pod);
    let request = Request::get(format!("http://{HOST}/")).body(Full::default().boxed()).unwrap();
    assert_eq!(timeout(GENEROUS, client.send_request(request)).await.unwrap().unwrap().status(), 200);
}

/// Bodies of queued requests must not block those that are being read, or a queue never drains: the last streams of a
/// connection are granted last.
#[tokio::test]
async fn bodies_of_queued_requests_do_not_block_others() {
    const STREAMS: usize = 64;
    const BODY: usize = 200_000;
    for protocol in ["http1", "h2c"] {
        let rig = Rig::start().await;
        rig.function(
            "hello",
            json!({"protocol": protocol, "scaling": {"concurrencyLimit": 1}, "queue": {"maxBytes": "64Mi"}}),
        );
        let sender = connect(rig.public).await;
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..STREAMS {
            let mut sender = sender.clone();
            calls.spawn(async move {
                let body = Full::from(vec![b'x'; BODY]).boxed();
                let request = Request::post(format!("http://{HOST}/")).body(body).unwrap();
                let answer = timeout(GENEROUS, sender.send_request(request)).await.expect("stuck").unwrap();
                timeout(GENEROUS, answer.into_body().collect()).await.expect("stuck").unwrap().to_bytes().len()
            });
        }
        rig.queued("hello", STREAMS as u64).await;
        let pod = FakePod::start(echo).await;
        rig.start_pod("hello", &pod);
        let lengths = calls.join_all().await;
        assert_eq!(lengths, [BODY; STREAMS], "{protocol}");
    }
}

/// A client that reads a long response slowly must not block other responses on the same connection to the pod.
#[tokio::test]
async fn an_unread_response_does_not_block_others() {
    const LENGTH: usize = 8 << 20;
    let pod = FakePod::start(|_| async { Response::new(Full::from(vec![b'x'; LENGTH]).boxed()) }).await;
    let rig = warm(&pod, json!({"protocol": "h2c"})).await;
    let mut slow = vec![];
    for _ in 0..8 {
        let mut client = Client::connect(rig.public).await;
        let request = Request::get("/").header("host", HOST).body(Full::default().boxed()).unwrap();
        slow.push((client.begin(request).await, client));
    }
    let quick = Client::connect(rig.public).await.get(HOST, "/").await;
    assert_eq!(quick.body.len(), LENGTH);
    for (answer, _) in slow {
        let body = timeout(GENEROUS, answer.into_body().collect()).await.expect("stuck").unwrap();
        assert_eq!(body.to_bytes().len(), LENGTH);
    }
}
