//! HTTP/1 clients, with a warm and with a cold function.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use rig::{
    Client, FakePod, GENEROUS, Rig, by_hand, get, narrow, ok, raw, raw_answer, raw_pod, read_head, read_until, running,
    warm,
};
use serde_json::json;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};

const HOST: &str = "hello.default.example.com";

async fn to_the_end(stream: &mut TcpStream) -> String {
    let mut text = vec![];
    timeout(GENEROUS, stream.read_to_end(&mut text)).await.expect("the connection stays open").unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

fn request(start: &str, more: &str) -> String {
    format!("{start}\r\nHost: {HOST}\r\n{more}\r\n")
}

/// Responds with method, path and body.
async fn telling() -> FakePod {
    FakePod::start(|request| async {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        ok(format!("{} {} {}", parts.method, parts.uri, String::from_utf8_lossy(&body)))
    })
    .await
}

/// Sends the same bytes to a warm and to a cold function; returns the responses without their heads.
async fn warm_and_cold(bytes: &str) -> [String; 2] {
    let pod = telling().await;
    let rig = warm(&pod, json!({})).await;
    let warm = raw_answer(rig.public, bytes).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let cold = tokio::spawn({
        let (public, bytes) = (rig.public, bytes.to_owned());
        async move { raw_answer(public, &bytes).await }
    });
    rig.queued("hello", 1).await;
    rig.start_pod("hello", &pod);
    [warm, cold.await.unwrap()]
}

#[tokio::test]
async fn http_1_0_closes_unless_asked_not_to() {
    for answer in warm_and_cold("GET /a HTTP/1.0\r\nHost: hello.default.example.com\r\n\r\n").await {
        assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\nGET /a "), "{answer}");
    }
    let bytes = [
        request("POST /a HTTP/1.0", "Connection: keep-alive\r\nContent-Length: 2\r\n"),
        "ab".to_owned(),
        request("GET /b HTTP/1.0", ""),
    ];
    for answer in warm_and_cold(&bytes.concat()).await {
        assert_eq!(answer.matches("HTTP/1.0 200").count(), 2, "{answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: keep-alive"), "{answer}");
        assert!(answer.contains("POST /a ab") && answer.ends_with("GET /b "), "{answer}");
    }
}

#[tokio::test]
async fn local_responses_are_valid_for_http_1_0_and_head() {
    let rig = Rig::start().await;
    let answer = raw_answer(rig.public, "GET / HTTP/1.0\r\nHost: nobody.example.com\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 404") && answer.ends_with('}') && !answer.contains("chunked"), "{answer}");
    let answer =
        raw_answer(rig.public, "HEAD / HTTP/1.1\r\nHost: nobody.example.com\r\nConnection: close\r\n\r\n").await;
    let lower = answer.to_ascii_lowercase();
    assert!(answer.starts_with("HTTP/1.1 404") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert!(lower.contains("content-length: ") && !lower.contains("content-length: 0"), "{answer}");
    let answer = raw_answer(rig.public, "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 501"), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_wait_for_their_turn() {
    let bytes = [
        request("GET /1 HTTP/1.1", ""),
        request("POST /2 HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
        "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n".to_owned(),
        request("POST /3 HTTP/1.1", "Content-Length: 3\r\n"),
        "def".to_owned(),
        request("GET /4 HTTP/1.1", "Connection: close\r\n"),
        request("GET /5 HTTP/1.1", ""),
    ];
    for answer in warm_and_cold(&bytes.concat()).await {
        let places: Vec<_> = ["GET /1 ", "POST /2 abc", "POST /3 def", "GET /4 "].map(|part| answer.find(part)).into();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{answer}");
        assert!(!answer.contains("GET /5"), "{answer}");
    }
}

#[tokio::test]
async fn a_head_may_arrive_in_pieces() {
    let pod = telling().await;
    let rig = warm(&pod, json!({})).await;
    let mut stream = TcpStream::connect(rig.public).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in request("POST /a HTTP/1.1", "Connection: close\r\nTransfer-Encoding: chunked\r\n").into_bytes() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    for piece in ["2", "\r", "\nab\r\n", "0\r\nX: ", "y\r\n\r", "\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = to_the_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("POST /a ab"), "{answer}");
}

#[tokio::test]
async fn a_half_closed_client_gets_the_response() {
    let go = Arc::new(Notify::new());
    let pod = FakePod::start({
        let go = go.clone();
        move |_| {
            let go = go.clone();
            async move {
                let (sender, body) = by_hand();
                go.notified().await;
                tokio::spawn(async move {
                    sender.send(Frame::data("one ".into())).await.ok();
                    go.notified().await;
                    sender.send(Frame::data("two".into())).await.ok();
                });
                http::Response::new(body)
            }
        }
    })
    .await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    // While it is queued, while it waits for the response, and during the response.
    for (start, body, interim) in
        [("GET / HTTP/1.1", "", true), ("POST / HTTP/1.1", "ab", true), ("GET / HTTP/1.0", "", false)]
    {
        let more = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let mut stream = raw(rig.public, &[request(start, &more), body.to_owned()].concat()).await;
        rig.queued("hello", 1).await;
        stream.shutdown().await.unwrap();
        if interim {
            // This is how a half-closed client is told from one that is gone.
            assert_eq!(read_head(&mut stream).await, "HTTP/1.1 100 Continue\r\n\r\n");
        }
        let name = rig.start_pod("hello", &pod);
        rig.in_flight("hello", 1).await;
        go.notify_one();
        let head = read_head(&mut stream).await;
        assert!(head.contains("200 OK"), "{head}");
        read_until(&mut stream, "one ").await;
        go.notify_one();
        assert!(to_the_end(&mut stream).await.contains("two"));
        rig.in_flight("hello", 0).await;
        rig.pod_deleted(rig::pod_object(&name, "hello", "uid-1", "hello-00001", running(), pod.address.port()));
    }
    // With a pod from the start.
    rig.start_pod("hello", &pod);
    let mut stream = raw(rig.public, &request("GET / HTTP/1.1", "")).await;
    rig.in_flight("hello", 1).await;
    stream.shutdown().await.unwrap();
    go.notify_one();
    read_until(&mut stream, "one ").await;
    go.notify_one();
    assert!(to_the_end(&mut stream).await.contains("two"));
    // And a pod that has the whole request in its socket before it reads.
    let answer = tokio::spawn({
        let mut stream = raw(rig.public, &request("GET / HTTP/1.1", "")).await;
        async move {
            stream.shutdown().await.unwrap();
            to_the_end(&mut stream).await
        }
    });
    rig.in_flight("hello", 1).await;
    go.notify_one();
    go.notify_one();
    timeout(GENEROUS, async {
        while !answer.is_finished() {
            go.notify_one();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert!(answer.await.unwrap().contains("two"));
}

#[tokio::test]
async fn a_client_that_half_closes_and_then_disconnects_is_detected() {
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let mut stream = raw(rig.public, &request("GET / HTTP/1.1", "")).await;
    rig.queued("hello", 1).await;
    stream.shutdown().await.unwrap();
    read_head(&mut stream).await;
    rig.queued("hello", 1).await;
    // With unread data a close is a reset; without, it is detected only when something is sent.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    rig.queued("hello", 0).await;
    rig.metric("rouse_activator_client_disconnects_total", 1).await;
}

#[tokio::test]
async fn a_disconnect_while_the_pod_works_is_detected() {
    let pod = FakePod::start(|_| std::future::pending()).await;
    let rig = warm(&pod, json!({})).await;
    for start in ["GET / HTTP/1.1", "HEAD / HTTP/1.1"] {
        let stream = raw(rig.public, &request(start, "")).await;
        rig.in_flight("hello", 1).await;
        drop(stream);
        rig.in_flight("hello", 0).await;
    }
}

#[tokio::test]
async fn a_disconnect_from_an_idle_stream_is_detected() {
    let pod = FakePod::start(|_| async {
        let (sender, body) = by_hand();
        tokio::spawn(async move {
            sender.send(Frame::data("data: 1\n\n".into())).await.ok();
            sender.closed().await;
        });
        http::Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    })
    .await;
    let rig = warm(&pod, json!({})).await;
    let mut stream = raw(rig.public, &request("GET /events HTTP/1.1", "")).await;
    // The first event arrives at once, and the stream has no end.
    read_until(&mut stream, "data: 1\n\n\r\n").await;
    rig.in_flight("hello", 1).await;
    drop(stream);
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn an_unread_body_is_not_asked_for() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"queue": {"maxRequests": 1}}));
    let _waiting = raw(rig.public, &request("GET / HTTP/1.1", "")).await;
    rig.queued("hello", 1).await;
    let expecting = "Content-Length: 5\r\nExpect: 100-continue\r\n";
    let answer = raw_answer(rig.public, &request("POST / HTTP/1.1", expecting)).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    let unknown = "POST / HTTP/1.1\r\nHost: nobody.example.com\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let answer = raw_answer(rig.public, unknown).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn an_early_response_reaches_a_client_that_is_still_sending() {
    // A pod that responds with an error as soon as it has the head, and then closes or keeps listening.
    for close in [true, false] {
        let port = raw_pod(move |_, mut stream| async move {
            let head = "HTTP/1.1 413 Payload Too Large\r\nContent-Length: 6\r\nConnection: close\r\n\r\nenough";
            stream.write_all(head.as_bytes()).await.ok();
            if !close {
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
            }
            None
        })
        .await;
        let rig = Rig::start().await;
        rig.function("hello", json!({}));
        rig.show_as("p", "hello", running(), port);
        for chunked in [false, true] {
            let size = 8 << 20;
            let length = if chunked {
                "Transfer-Encoding: chunked\r\n".to_owned()
            } else {
                format!("Content-Length: {size}\r\n")
            };
            let mut stream = raw(rig.public, &request("POST / HTTP/1.1", &length)).await;
            // The client does not read while it sends, as many clients do.
            let piece = if chunked {
                [b"10000\r\n", vec![b'x'; 65536].as_slice(), b"\r\n"].concat()
            } else {
                vec![b'x'; 65536]
            };
            for _ in 0..(size / 65536) {
                timeout(GENEROUS, stream.write_all(&piece)).await.expect("the upload is stuck").unwrap();
            }
            let answer = read_until(&mut stream, "enough").await;
            assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        }
        rig.in_flight("hello", 0).await;
    }
}

/// Waits until a number has stopped growing.
async fn settled(count: &AtomicUsize) -> usize {
    let (mut last, mut same) = (usize::MAX, 0);
    timeout(GENEROUS, async {
        while same < 30 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = count.load(Ordering::SeqCst);
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
    })
    .await
    .expect("it does not come to rest");
    last
}

const ALL: usize = 64 << 20;
/// Bytes of a response that are on the way, with small socket buffers at both ends: those of the activator, and of its
/// sockets, which the kernel sizes by the throughput. `hostile_memory.rs` measures the process alone.
const HELD: usize = 4 << 20;
/// The same of a request, with socket buffers of the usual size at both ends.
const HELD_OF_REQUEST: usize = 24 << 20;

#[tokio::test]
async fn a_pod_that_does_not_read_applies_backpressure() {
    let go = Arc::new(Notify::new());
    let pod = FakePod::start({
        let go = go.clone();
        move |request| {
            let go = go.clone();
            async move {
                go.notified().await;
                let (mut body, mut count) = (request.into_body(), 0);
                while let Some(Ok(frame)) = body.frame().await {
                    count += frame.into_data().map_or(0, |data| data.len());
                }
                ok(count.to_string())
            }
        }
    })
    .await;
    let rig = warm(&pod, json!({})).await;
    let sent = Arc::new(AtomicUsize::new(0));
    let length = format!("Content-Length: {ALL}\r\nConnection: close\r\n");
    let stream = raw(rig.public, &request("POST / HTTP/1.1", &length)).await;
    let (mut reader, mut writer) = stream.into_split();
    let sending = tokio::spawn({
        let sent = sent.clone();
        async move {
            let piece = vec![b'x'; 1 << 16];
            while sent.load(Ordering::SeqCst) < ALL {
                let wanted = piece.len().min(ALL - sent.load(Ordering::SeqCst));
                sent.fetch_add(writer.write(&piece[..wanted]).await.unwrap(), Ordering::SeqCst);
            }
            writer
        }
    });
    let held = settled(&sent).await;
    assert!((1..HELD_OF_REQUEST).contains(&held), "{held} bytes were taken for a pod that reads none");
    println!("{held} bytes are held for a pod");
    go.notify_one();
    let mut answer = String::new();
    timeout(GENEROUS, reader.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with(&ALL.to_string()), "{answer}");
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_client_that_does_not_read_applies_backpressure() {
    let sent = Arc::new(AtomicUsize::new(0));
    let port = raw_pod({
        let sent = sent.clone();
        move |_, mut stream| {
            let sent = sent.clone();
            async move {
                SockRef::from(&stream).set_send_buffer_size(16 << 10).unwrap();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {ALL}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.ok()?;
                let piece = vec![b'x'; 1 << 16];
                while sent.load(Ordering::SeqCst) < ALL {
                    let wanted = piece.len().min(ALL - sent.load(Ordering::SeqCst));
                    sent.fetch_add(stream.write(&piece[..wanted]).await.ok()?, Ordering::SeqCst);
                }
                Some(stream)
            }
        }
    })
    .await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.show_as("p", "hello", running(), port);
    let mut stream = narrow(rig.public, &request("GET / HTTP/1.1", "Connection: close\r\n")).await;
    let held = settled(&sent).await;
    assert!((1..HELD).contains(&held), "{held} bytes were taken for a client that reads none");
    println!("{held} bytes are held for a client");
    let mut count = 0;
    let mut piece = vec![0; 1 << 16];
    while let Ok(n @ 1..) = timeout(GENEROUS, stream.read(&mut piece)).await.unwrap() {
        count += n;
    }
    assert!(count >= ALL, "{count}");
}

#[tokio::test]
async fn a_connection_survives_an_early_response_to_a_small_request() {
    let pod = FakePod::start(|request| async move {
        let mut response = ok("early");
        if request.uri().path() == "/big" {
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        }
        response
    })
    .await;
    let rig = warm(&pod, json!({})).await;
    let mut client = Client::connect(rig.public).await;
    for path in ["/big", "/small", "/big"] {
        let request = Request::post(path).header("host", HOST).body(Full::from("abc").boxed()).unwrap();
        assert_eq!(client.send(request).await.text(), "early");
    }
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
}
