//! TLS that ends in the activator.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::path::Path;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rig::{Authority, FakePod, GENEROUS, Rig, ok, read_head, swap};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

const HOST: &str = "hello.default.example.com";

/// An activator with the certificate in `folder`, and a function `hello` that responds with its request headers.
async fn rig(folder: &Path, flags: &[&str]) -> (Rig, FakePod) {
    let pod = FakePod::start(|request: Request<Incoming>| async move {
        let told = |name: &str| request.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
        let text = format!("{} {}", told("x-forwarded-proto"), told("forwarded"));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        ok([text.as_bytes(), b" ", &body].concat())
    })
    .await;
    let files = [("cert", "tls.crt"), ("key", "tls.key")];
    let files = files.map(|(flag, file)| format!("--tls-{flag}-file={}", folder.join("..data").join(file).display()));
    let mut all = vec!["--tls-addr=127.0.0.1:0", &files[0], &files[1]];
    all.extend(flags);
    let rig = Rig::with(&all).await;
    rig.function("hello", json!({}));
    rig.start_pod("hello", &pod);
    (rig, pod)
}

async fn over_http1(stream: TlsStream<TcpStream>, request: Request<Full<Bytes>>) -> Response<Incoming> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    timeout(GENEROUS, sender.send_request(request)).await.unwrap().unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    String::from_utf8(timeout(GENEROUS, response.into_body().collect()).await.unwrap().unwrap().to_bytes().into())
        .unwrap()
}

fn get() -> Request<Full<Bytes>> {
    Request::get("/").header("host", HOST).header("x-forwarded-proto", "http").body(Full::default()).unwrap()
}

#[tokio::test]
async fn both_http_versions_are_served_and_forwarded_proto_is_https() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(folder.path(), "1", 2099);
    let (rig, _pod) = rig(folder.path(), &[]).await;

    let stream = authority.connect(&rig, &["http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let answer = text(over_http1(stream, get()).await).await;
    assert!(answer.starts_with("https for=") && answer.contains("proto=https"), "{answer}");

    let stream = authority.connect(&rig, &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(format!("https://{HOST}/")).body(Empty::<Bytes>::new()).unwrap();
    let answer = text(timeout(GENEROUS, sender.send_request(request)).await.unwrap().unwrap()).await;
    assert!(answer.starts_with("https "), "{answer}");

    // More than a socket takes at once, in both directions.
    let much = Bytes::from(vec![b'~'; 3 << 20]);
    let request = Request::post("/").header("host", HOST).body(Full::new(much)).unwrap();
    let answer = text(over_http1(authority.connect(&rig, &[]).await, request).await).await;
    assert_eq!(answer.bytes().filter(|b| *b == b'~').count(), 3 << 20);

    // It is a public listener like the other one.
    rig.function("inside", json!({"visibility": "Cluster"}));
    for host in ["inside.default", "inside.default.example.com"] {
        let request = Request::get("/").header("host", host).body(Full::default()).unwrap();
        assert_eq!(over_http1(authority.connect(&rig, &[]).await, request).await.status(), 404, "{host}");
    }
}

#[tokio::test]
async fn the_head_guard_works_behind_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(folder.path(), "1", 2099);
    let (rig, pod) = rig(folder.path(), &["--head-timeout=300ms"]).await;
    let (told, smuggled) = (std::sync::atomic::Ordering::SeqCst, "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n");
    let request = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{smuggled}\r\n0\r\n\r\n");
    for (request, status) in [(request.as_str(), " 400 "), ("GET / HTTP/1.1\r\nHost", " 408 ")] {
        let mut stream = authority.connect(&rig, &[]).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![];
        timeout(GENEROUS, stream.read_to_end(&mut answer)).await.expect("it stays open").expect("it ends by the rules");
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains(status) && answer.contains("application/problem+json"), "{answer}");
    }
    assert_eq!(pod.requests.load(told), 0);
    // A handshake has the timeout of a head.
    let mut silent = TcpStream::connect(rig.tls.unwrap()).await.unwrap();
    assert_eq!(timeout(GENEROUS, silent.read(&mut [0; 8])).await.expect("it is waited for for ever").unwrap(), 0);
    let mut plain = rig::raw(rig.tls.unwrap(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut answer = vec![];
    timeout(GENEROUS, plain.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(!answer.starts_with(b"HTTP"), "without TLS there is no answer");
    rig.metric("rouse_tls_handshake_failures_total", 2).await;
}

#[tokio::test]
async fn a_client_that_disconnects_leaves_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(folder.path(), "1", 2099);
    let (rig, _pod) = rig(folder.path(), &[]).await;
    rig.function("cold", json!({}));
    let request = b"GET / HTTP/1.1\r\nHost: cold.default.example.com\r\n\r\n";
    let mut stays = authority.connect(&rig, &[]).await;
    stays.write_all(request).await.unwrap();
    let mut leaves = authority.connect(&rig, &[]).await;
    leaves.write_all(request).await.unwrap();
    rig.queued("cold", 2).await;
    drop(leaves);
    rig.queued("cold", 1).await;
    // A client that sends close_notify and keeps its connection still reads.
    stays.get_mut().1.send_close_notify();
    stays.flush().await.unwrap();
    let pod = FakePod::saying("late").await;
    rig.start_pod("cold", &pod);
    let mut answer = vec![];
    timeout(GENEROUS, async {
        while !answer.ends_with(b"late") {
            assert_ne!(stays.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
        }
    })
    .await
    .expect("no answer");
}

#[tokio::test]
async fn a_valid_new_certificate_is_loaded_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let first = authority.write(folder.path(), "1", 2099);
    let (rig, _pod) = rig(folder.path(), &[]).await;
    let served = async || {
        let stream = authority.connect(&rig, &[]).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let kept = authority.connect(&rig, &[]).await;
    assert_eq!(served().await, first);
    swap(folder.path(), "2", "not a certificate", "not a key");
    rig.metric("rouse_tls_certificate_reload_failures_total", 1).await;
    assert_eq!(served().await, first);
    let second = authority.write(folder.path(), "3", 2098);
    timeout(GENEROUS, async { while served().await != second {} }).await.expect("the former is served for ever");
    // Unix time of the beginning of 2098.
    rig.metric("rouse_tls_certificate_expiration_timestamp_seconds", 4_039_372_800).await;
    assert_eq!(over_http1(kept, get()).await.status(), StatusCode::OK, "connections outlive their certificate");
}

#[tokio::test]
async fn other_listeners_serve_with_an_expired_certificate_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (rig, _pod) = rig(folder.path(), &[]).await;
    rig.metric("rouse_tls_certificate_reload_failures_total", 1).await;
    assert_eq!(rig::get(rig.public, HOST, "/").await.status, StatusCode::OK);
    let refused = authority.try_connect(TcpStream::connect(rig.tls.unwrap()).await.unwrap(), &[]).await;
    assert!(refused.is_err(), "there is no certificate");
    authority.write(folder.path(), "1", 2021);
    rig.metric("rouse_tls_certificate_expiration_timestamp_seconds", 1_609_459_200).await;
    // It is served; the client decides whether to accept it.
    let refused = authority.try_connect(TcpStream::connect(rig.tls.unwrap()).await.unwrap(), &[]).await;
    assert!(refused.unwrap_err().to_string().contains("xpired"));
}

#[tokio::test]
async fn plain_requests_are_redirected_to_https() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(folder.path(), "1", 2099);
    let (rig, pod) = rig(folder.path(), &["--https-redirect", "--trusted-proxies=127.0.0.1"]).await;
    let sent = rig::get(rig.public, &format!("{HOST}:8080"), "/x?y").await;
    assert_eq!(
        (sent.status, sent.header("location")),
        (StatusCode::PERMANENT_REDIRECT, &*format!("https://{HOST}/x?y"))
    );
    assert_eq!(rig::get(rig.public, "nobody.default.example.com", "/").await.status, StatusCode::NOT_FOUND);
    assert_eq!(pod.requests.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(rig::get(rig.cluster, "hello.default", "/").await.status, StatusCode::OK, "pods call as they like");
    assert_eq!(over_http1(authority.connect(&rig, &[]).await, get()).await.status(), StatusCode::OK);
    let by_ingress = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Proto: https\r\n\r\n");
    let mut stream = rig::raw(rig.public, &by_ingress).await;
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200"));
    let by_two = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-Proto: https, http\r\n\r\n");
    let mut stream = rig::raw(rig.public, &by_two).await;
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200"), "it would come back for ever");
}

#[tokio::test]
async fn a_page_of_another_origin_can_follow_the_https_redirect() {
    let folder = tempfile::tempdir().unwrap();
    Authority::new().write(folder.path(), "1", 2099);
    let (rig, _pod) = rig(folder.path(), &["--https-redirect"]).await;
    rig.function("hello", json!({"routes": [{"cors": {"allowOrigins": ["https://a.example"]}}]}));
    let call = |method: &str| {
        let of_page = format!("{method} / HTTP/1.1\r\nHost: {HOST}\r\nOrigin: https://a.example\r\n");
        let public = rig.public;
        async move {
            let asks = format!("{of_page}Access-Control-Request-Method: PUT\r\n\r\n");
            read_head(&mut rig::raw(public, &asks).await).await.to_lowercase()
        }
    };
    let (preflight, redirect) = (call("OPTIONS").await, call("PUT").await);
    assert!(preflight.starts_with("http/1.1 204"), "{preflight}");
    assert!(redirect.starts_with("http/1.1 308"), "{redirect}");
    for answer in [preflight, redirect] {
        assert!(answer.contains("access-control-allow-origin: https://a.example\r\n"), "{answer}");
    }
}

/// An error response to a gRPC request is a gRPC status over TLS too.
#[tokio::test]
async fn errors_are_grpc_statuses() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(folder.path(), "1", 2099);
    let (rig, _pod) = rig(folder.path(), &[]).await;
    let stream = authority.connect(&rig, &["h2"]).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("https://nobody.default.example.com/test.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::<Bytes>::from("message"))
        .unwrap();
    let response = timeout(GENEROUS, sender.send_request(request)).await.unwrap().unwrap();
    assert_eq!((response.status(), &response.headers()["grpc-status"]), (StatusCode::OK, &"5".parse().unwrap()));
    assert_eq!(response.headers()["rouse-problem"], "unknown-host");
    assert!(http_body::Body::is_end_stream(response.body()), "a single head");
}

#[tokio::test]
async fn proxies_of_the_tls_listener_are_named_on_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(folder.path(), "1", 2099);
    for (flag, proto) in [("--trusted-proxies=127.0.0.0/8", "https"), ("--trusted-proxies-tls=127.0.0.0/8", "http")] {
        let (rig, _pod) = rig(folder.path(), &[flag]).await;
        // The client states that it used no TLS to the proxy.
        let answer = text(over_http1(authority.connect(&rig, &["http/1.1"]).await, get()).await).await;
        assert!(answer.starts_with(&format!("{proto} for=")), "{flag}: {answer}");
        assert!(answer.contains(&format!("proto={proto}")), "{flag}: {answer}");
    }
}
