//! Forwarding between client and pod: headers, bodies, upgrades, pipelining.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{convert::Infallible, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rig::{Client, FakePod, GENEROUS, PodBody, Rig, by_hand, get, ok, raw, raw_answer, running, warm};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

const HOST: &str = "hello.default.example.com";

/// Responds with the request: method, target and headers as JSON, then the body.
async fn echo(request: Request<hyper::body::Incoming>) -> Response<PodBody> {
    let (parts, body) = request.into_parts();
    let headers: serde_json::Map<_, _> =
        parts.headers.iter().map(|(n, v)| (n.to_string(), json!(String::from_utf8_lossy(v.as_bytes())))).collect();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let seen = json!({
        "method": parts.method.as_str(), "uri": parts.uri.to_string(), "version": format!("{:?}", parts.version), "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    ok(seen.to_string())
}

#[tokio::test]
async fn headers_are_removed_and_added() {
    let pod = FakePod::start(echo).await;
    let rig = Rig::with(&["--trusted-proxies=127.0.0.0/8"]).await;
    rig.function("hello", json!({}));
    rig.start_pod("hello", &pod);
    let request = Request::post("/a%20b?c=d")
        .header("host", "HELLO.default.example.com:8080")
        .header("connection", "keep-alive, x-secret, host")
        .header("x-secret", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "gzip, trailers")
        .header("rouse-internal", "forged")
        .header("x-forwarded-for", "203.0.113.7")
        .header("x-forwarded-proto", "https")
        .header("forwarded", "for=203.0.113.7;proto=https")
        .header("x-request-id", "abc-1")
        .header("authorization", "Bearer x")
        .body(Full::from("body").boxed())
        .unwrap();
    let answer = Client::connect(rig.public).await.send(request).await;
    assert_eq!(answer.status, 200);
    let seen = answer.json();
    assert_eq!((&seen["uri"], &seen["body"], &seen["method"]), (&json!("/a%20b?c=d"), &json!("body"), &json!("POST")));
    let headers = &seen["headers"];
    for gone in ["x-secret", "keep-alive", "rouse-internal"] {
        assert_eq!(headers[gone], json!(null), "{gone}");
    }
    for (name, value) in [
        ("host", "HELLO.default.example.com:8080"),
        ("te", "trailers"),
        ("connection", "TE"),
        ("x-forwarded-for", "203.0.113.7, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "HELLO.default.example.com:8080"),
        ("forwarded", "for=203.0.113.7;proto=https, for=127.0.0.1;host=\"HELLO.default.example.com:8080\";proto=https"),
        ("x-request-id", "abc-1"),
        ("authorization", "Bearer x"),
        ("content-length", "4"),
    ] {
        assert_eq!(headers[name], json!(value), "{name}");
    }
    assert_eq!(headers["traceparent"].as_str().unwrap().len(), 55);
}

#[tokio::test]
async fn headers_are_added_once_to_a_request_that_goes_to_a_second_pod() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"scaling": {"concurrencyLimit": 5}}));
    let first = FakePod::saying("first").await;
    rig.start_pod("hello", &first);
    assert_eq!(get(rig.public, HOST, "/").await.text(), "first");
    let second = FakePod::start(echo).await;
    rig.start_pod("hello", &second);
    drop(first);
    let seen = get(rig.public, HOST, "/").await.json();
    rig.metric("rouse_activator_retries_total", 1).await;
    let headers = &seen["headers"];
    assert_eq!(headers["x-forwarded-for"], json!("127.0.0.1"));
    assert_eq!(headers["forwarded"], json!("for=127.0.0.1;host=\"hello.default.example.com\";proto=http"));
    assert_eq!(headers["x-request-id"].as_str().unwrap().len(), 32);
    assert_eq!(headers["traceparent"].as_str().unwrap().len(), 55);
}

#[tokio::test]
async fn both_bodies_stream() {
    let pod = FakePod::start(|request| async {
        let (to_client, body) = by_hand();
        tokio::spawn(async move {
            let mut parts = request.into_body();
            while let Some(Ok(frame)) = parts.frame().await {
                to_client.send(frame).await.ok();
            }
        });
        Response::new(body)
    })
    .await;
    let rig = warm(&pod, json!({})).await;
    let (to_pod, body) = by_hand();
    let mut client = Client::connect(rig.public).await;
    let request = Request::post("/").header("host", HOST).body(body).unwrap();
    let mut answer = client.begin(request).await.into_body();
    for word in ["one", "two", "three"] {
        to_pod.send(Frame::data(word.into())).await.unwrap();
        let frame = timeout(GENEROUS, answer.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
        rig.in_flight("hello", 1).await;
    }
    drop(to_pod);
    assert!(timeout(GENEROUS, answer.frame()).await.unwrap().is_none());
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn a_request_is_in_flight_until_its_response_ends_or_the_client_disconnects() {
    let pod = FakePod::start(|_| async {
        let (sender, body) = by_hand();
        tokio::spawn(async move {
            // Until the other side disconnects.
            while sender.send(Frame::data("x".into())).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        Response::new(body)
    })
    .await;
    let rig = warm(&pod, json!({})).await;
    let mut client = Client::connect(rig.public).await;
    let request = Request::get("/").header("host", HOST).body(Full::default().boxed()).unwrap();
    let answer = client.begin(request).await;
    rig.in_flight("hello", 1).await;
    drop(answer);
    drop(client);
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn a_client_disconnect_aborts_the_request_in_the_pod() {
    let pod = FakePod::start(|_| std::future::pending()).await;
    let rig = warm(&pod, json!({})).await;
    let client = raw(rig.public, &format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 2\r\n\r\nab")).await;
    rig.in_flight("hello", 1).await;
    timeout(GENEROUS, async {
        while pod.now.load(Ordering::SeqCst) != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    drop(client);
    rig.in_flight("hello", 0).await;
    timeout(GENEROUS, async {
        while pod.now.load(Ordering::SeqCst) != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let pod = FakePod::start(|request| async {
        let sent = request.into_body().collect().await.unwrap().trailers().unwrap()["x-sum"].clone();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-back", sent);
        let frames = [Frame::data(Bytes::from("hi")), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
        let body = BodyExt::boxed(StreamBody::new(futures::stream::iter(frames)));
        Response::builder().header("trailer", "x-back").body(body).unwrap()
    })
    .await;
    let rig = warm(&pod, json!({})).await;
    let (sender, body) = by_hand();
    let request =
        Request::post("/").header("host", HOST).header("te", "trailers").header("trailer", "x-sum").body(body).unwrap();
    let sending = tokio::spawn(async move {
        sender.send(Frame::data("data".into())).await.unwrap();
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("x-sum"), HeaderValue::from_static("42"))]);
        sender.send(Frame::trailers(trailers)).await.unwrap();
    });
    let answer = Client::connect(rig.public).await.send(request).await;
    sending.await.unwrap();
    assert_eq!((answer.text().as_str(), &answer.trailers.unwrap()["x-back"]), ("hi", &HeaderValue::from_static("42")));
}

/// Accepts an upgrade and echoes bytes in upper case.
async fn shouting(mut request: Request<hyper::body::Incoming>) -> Response<PodBody> {
    let Some(protocol) = request.headers().get("upgrade").cloned() else { return ok("no upgrade") };
    assert_eq!(request.headers()["connection"], "upgrade");
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        let mut buffer = [0; 64];
        while let Ok(n @ 1..) = io.read(&mut buffer).await {
            io.write_all(&buffer[..n].to_ascii_uppercase()).await.unwrap();
        }
        io.write_all(b"bye").await.unwrap();
        io.shutdown().await.unwrap();
    });
    let response = Response::builder().status(101).header("connection", "upgrade").header("upgrade", protocol);
    response.body(BodyExt::boxed(Full::default())).unwrap()
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel_and_counts_until_it_ends() {
    let pod = FakePod::start(shouting).await;
    let rig = warm(&pod, json!({})).await;
    let head = format!("GET /ws HTTP/1.1\r\nhost: {HOST}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    let mut stream = raw(rig.public, &head).await;
    let mut head = vec![];
    timeout(GENEROUS, async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    })
    .await
    .unwrap();
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    let mut buffer = [0; 5];
    for _ in 0..3 {
        stream.write_all(b"hel\no").await.unwrap();
        timeout(GENEROUS, stream.read_exact(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(&buffer, b"HEL\nO");
    }
    rig.in_flight("hello", 1).await;
    // Half-closed: what the pod still sends arrives.
    stream.shutdown().await.unwrap();
    let mut rest = vec![];
    timeout(GENEROUS, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"bye");
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_response() {
    let pod = FakePod::start(|_| async { ok("plain") }).await;
    let rig = warm(&pod, json!({})).await;
    let answer = raw_answer(
        rig.public,
        &format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("plain"), "{answer}");
}

#[tokio::test]
async fn a_pod_cannot_switch_protocols_unasked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                if stream.read(&mut buffer).await.is_ok_and(|n| n == 0) {
                    return;
                }
                stream
                    .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
                    .await
                    .ok();
                stream.read_to_end(&mut vec![]).await.ok();
            });
        }
    });
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    rig.show_as("p", "hello", running(), port);
    assert_eq!(get(rig.public, HOST, "/").await.json()["type"], "https://rouse.dev/problems/bad-response");
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn expect_continue_is_sent_when_the_body_is_read() {
    let pod = FakePod::start(echo).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({}));
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 4\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
    );
    let mut stream = raw(rig.public, &head).await;
    rig.queued("hello", 1).await;
    let mut byte = [0; 1];
    let early = stream.try_read(&mut byte);
    assert!(
        early.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock),
        "the body is asked for before there is a pod"
    );
    rig.start_pod("hello", &pod);
    let mut interim = [0; 25];
    timeout(GENEROUS, stream.read_exact(&mut interim)).await.unwrap().unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    let mut answer = String::new();
    timeout(GENEROUS, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains(r#""body":"body""#) && !answer.contains("expect"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_response_that_has_begun_ends_only_by_idle_timeout() {
    let pod = FakePod::start(|request| async move {
        let (sender, body) = by_hand();
        let slow = request.uri().path() == "/slow";
        tokio::spawn(async move {
            for _ in 0..5 {
                sender.send(Frame::data("x".into())).await.ok();
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            if !slow {
                sender.closed().await;
            }
        });
        Response::new(body)
    })
    .await;
    let rig = warm(&pod, json!({"timeouts": {"response": "1s", "idle": "1s"}})).await;
    assert_eq!(get(rig.public, HOST, "/slow").await.text(), "xxxxx");
    let mut client = Client::connect(rig.public).await;
    let request = Request::get("/silent").header("host", HOST).body(Full::default().boxed()).unwrap();
    let broken = timeout(GENEROUS, client.begin(request).await.into_body().collect()).await.unwrap();
    assert!(broken.is_err());
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn a_connection_is_reused() {
    let pod = FakePod::saying("hi").await;
    let rig = warm(&pod, json!({})).await;
    let mut client = Client::connect(rig.public).await;
    for method in [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS] {
        let request = Request::builder()
            .method(method.clone())
            .uri("/")
            .header("host", HOST)
            .body(Full::default().boxed())
            .unwrap();
        let answer = client.send(request).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, if method == Method::HEAD { "" } else { "hi" })
        );
    }
}

#[tokio::test]
async fn http_1_0_is_served_and_closed() {
    let pod = FakePod::start(|_| async {
        let (sender, body) = by_hand();
        tokio::spawn(async move { sender.send(Frame::data("streamed".into())).await });
        Response::new(body)
    })
    .await;
    let rig = warm(&pod, json!({})).await;
    let answer = raw_answer(rig.public, &format!("GET / HTTP/1.0\r\nhost: {HOST}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\nstreamed"), "{answer}");
}

#[tokio::test]
async fn pipelined_requests_are_served_in_order() {
    let pod = FakePod::start(echo).await;
    let rig = warm(&pod, json!({})).await;
    let one = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n{more}\r\n");
    let answer =
        raw_answer(rig.public, &[one("/1", ""), one("/2", ""), one("/3", "connection: close\r\n")].concat()).await;
    let places: Vec<_> = ["\"/1\"", "\"/2\"", "\"/3\""].into_iter().map(|p| answer.find(p).unwrap()).collect();
    assert!(places.is_sorted(), "{answer}");
}

#[tokio::test]
async fn ambiguous_requests_are_rejected() {
    let pod = FakePod::saying("hi").await;
    let rig = warm(&pod, json!({})).await;
    for head in [
        "POST / HTTP/1.1\r\nhost: HOST\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: HOST\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: HOST\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "POST / HTTP/1.0\r\nhost: HOST\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : HOST\r\n\r\n",
        "GET / HTTP/1.1\nhost: HOST\n\n",
        "GET / HTTP/1.1\r\nhost: HOST\r\nx: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: HOST\r\nhost: HOST\r\n\r\n",
        "GET http://other.default.example.com/ HTTP/1.1\r\nhost: HOST\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
    ] {
        let answer = raw_answer(rig.public, &head.replace("HOST", HOST)).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"), "{head:?}: {answer}");
    }
    assert_eq!(pod.requests.load(Ordering::SeqCst), 0);
    assert_eq!(get(rig.public, HOST, "/").await.status, 200);
}

#[tokio::test]
async fn http_2_with_prior_knowledge_on_both_sides() {
    let pod = FakePod::start(|request| async {
        assert_eq!((request.version(), request.uri().authority().unwrap().as_str()), (http::Version::HTTP_2, HOST));
        assert!(request.headers().get("host").is_none());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let trailers =
            HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
        let frames = [Frame::data(body), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
        Response::new(BodyExt::boxed(StreamBody::new(futures::stream::iter(frames))))
    })
    .await;
    let rig = warm(&pod, json!({"protocol": "h2c"})).await;
    let stream = TcpStream::connect(rig.public).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let calls = (0..50).map(|n| {
        let mut sender = sender.clone();
        async move {
            let request = Request::post(format!("http://{HOST}/{n}"))
                .header("te", "trailers")
                .body(Full::new(Bytes::from(n.to_string())))
                .unwrap();
            let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
            assert_eq!(body.to_bytes(), n.to_string());
        }
    });
    timeout(GENEROUS, futures::future::join_all(calls)).await.unwrap();
    rig.in_flight("hello", 0).await;
}

#[tokio::test]
async fn an_early_response_does_not_wait_for_the_rest_of_the_request() {
    let pod = FakePod::start(|_| async {
        let mut response = ok("enough");
        *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
        response
    })
    .await;
    let rig = warm(&pod, json!({})).await;
    let (_sender, body) = by_hand();
    let request = Request::post("/").header("host", HOST).body(body).unwrap();
    let answer = Client::connect(rig.public).await.send(request).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (413, "enough"));
    rig.in_flight("hello", 0).await;
}
