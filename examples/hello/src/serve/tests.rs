//! Tests over real sockets.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::settings::Settings;

/// Timeout of every test, so that a hang fails.
const LIMIT: Duration = Duration::from_secs(30);

struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

async fn served() -> Served {
    let settings = Settings::read(|name| (name == "POD_NAME").then(|| "pod-1".to_owned())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let function = Arc::new(Function::new(settings));
    let ended = tokio::spawn(serve(listener, function, async {
        stopped.await.ok();
    }));
    Served { address, stop, ended }
}

impl Served {
    async fn connect(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends `request` and returns everything until the server closes.
    async fn exchange(&self, request: &str) -> String {
        let mut connection = self.connect().await;
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        timeout(LIMIT, connection.read_to_string(&mut response)).await.unwrap().unwrap();
        response
    }

    async fn get(&self, path: &str) -> String {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")).await
    }
}

/// Reads until the line `wanted`, inclusive.
async fn read_until_line(connection: &mut BufReader<TcpStream>, wanted: &str) {
    loop {
        let mut line = String::new();
        let read = timeout(LIMIT, connection.read_line(&mut line)).await.unwrap().unwrap();
        assert_ne!(read, 0, "the connection ended before {wanted:?}");
        if line.trim_end() == wanted {
            return;
        }
    }
}

#[tokio::test]
async fn greeting_contains_pod_and_number() {
    let served = served().await;
    served.get("/").await;
    let response = served.get("/").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.contains("hello-pod: pod-1\r\n"), "{response}");
    assert!(response.contains("hello-request: 2\r\n"), "{response}");
    assert!(response.contains("hello-in-flight: 1\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nHello from pod-1, request 2 of this pod\n"), "{response}");
}

#[tokio::test]
async fn statuses_and_invalid_requests() {
    let served = served().await;
    assert!(served.get("/?status=503").await.starts_with("HTTP/1.1 503 "));
    assert!(served.get("/?status=204").await.ends_with("\r\n\r\n"));
    assert!(served.get("/?status=101").await.starts_with("HTTP/1.1 400 "));
    assert!(served.get("/?sleep=soon").await.ends_with("sleep=soon is not a duration such as 2s or 150ms\n"));
    assert!(served.get("/nowhere").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn probes_are_not_counted() {
    let served = served().await;
    assert!(served.get("/ready").await.starts_with("HTTP/1.1 200 "));
    let stats = served.get("/stats").await;
    assert!(stats.ends_with("{\"in_flight\":1,\"most_in_flight\":1,\"requests\":1}\n"), "{stats}");
}

#[tokio::test]
async fn headers_are_returned_as_json() {
    let served = served().await;
    let request = "GET /headers?a=b HTTP/1.1\r\nHost: hello\r\nX-Two: 1\r\nX-Two: 2\r\nConnection: close\r\n\r\n";
    let response = served.exchange(request).await;
    let json: serde_json::Value = serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(json["method"], "GET");
    assert_eq!(json["uri"], "/headers?a=b");
    assert_eq!(json["headers"]["x-two"], serde_json::json!(["1", "2"]));
}

#[tokio::test]
async fn echo_responds_before_the_body_ends_and_keeps_trailers() {
    let served = served().await;
    let mut connection = served.connect().await;
    let head = "POST /echo HTTP/1.1\r\nHost: hello\r\nTE: trailers\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(b"5\r\nfirst\r\n").await.unwrap();
    read_until_line(&mut connection, "first").await;
    connection.write_all(b"6\r\nsecond\r\n0\r\nx-sum: 11\r\n\r\n").await.unwrap();
    let mut rest = String::new();
    timeout(LIMIT, connection.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, "6\r\nsecond\r\n0\r\nx-sum: 11\r\n\r\n");
}

#[tokio::test]
async fn uploads_are_counted_and_sizes_are_sent() {
    let served = served().await;
    let body = "x".repeat(100_000);
    let head = "POST /upload HTTP/1.1\r\nHost: hello\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n";
    assert!(served.exchange(&format!("{head}{body}")).await.ends_with("{\"bytes\":100000}\n"));
    let response = served.get("/size?bytes=100000").await;
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-length: 100000"), "{head}");
    assert_eq!(body.len(), 100_000);
}

#[tokio::test]
async fn streams_and_events_are_sent_one_by_one() {
    let served = served().await;
    let response = served.get("/stream?chunks=2&interval_ms=1").await;
    assert!(response.ends_with("8\r\nchunk 1\n\r\n8\r\nchunk 2\n\r\n0\r\n\r\n"), "{response}");
    let response = served.get("/sse?events=1&interval_ms=1").await;
    assert!(response.contains("content-type: text/event-stream\r\n"), "{response}");
    assert!(response.contains("id: 1\ndata: event 1\n\n"), "{response}");
}

#[tokio::test]
async fn an_upgraded_connection_echoes_until_it_is_closed() {
    let served = served().await;
    assert!(served.get("/upgrade").await.starts_with("HTTP/1.1 426 "));
    let mut connection = served.connect().await;
    let head = "GET /upgrade HTTP/1.1\r\nHost: hello\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    read_until_line(&mut connection, "").await;
    connection.write_all(b"ping\n").await.unwrap();
    read_until_line(&mut connection, "ping").await;
    // Half-closed: the last bytes are still echoed.
    connection.write_all(b"last").await.unwrap();
    connection.shutdown().await.unwrap();
    let mut rest = String::new();
    timeout(LIMIT, connection.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, "last");
}

#[tokio::test]
async fn h2c_is_served_on_the_same_port() {
    let served = served().await;
    let stream = TcpStream::connect(served.address).await.unwrap();
    let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::get("http://hello/headers").body(Empty::<Bytes>::new()).unwrap();
    let response = timeout(LIMIT, sender.send_request(request)).await.unwrap().unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(json["version"], "HTTP/2.0");
    drop(sender);
    timeout(LIMIT, driver).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_drains_requests_and_tunnels_and_closes_idle_connections() {
    let served = served().await;
    let mut idle = served.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nHost: hello\r\n\r\n").await.unwrap();
    read_until_line(&mut idle, "Hello from pod-1, request 1 of this pod").await;

    let mut tunnel = served.connect().await;
    tunnel
        .write_all(b"GET /upgrade HTTP/1.1\r\nHost: hello\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        .await
        .unwrap();
    read_until_line(&mut tunnel, "").await;

    let mut echo = served.connect().await;
    echo.write_all(b"POST /echo HTTP/1.1\r\nHost: hello\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        .await
        .unwrap();
    read_until_line(&mut echo, "hi").await;

    served.stop.send(()).unwrap();
    let mut rest = String::new();
    timeout(LIMIT, idle.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, "", "idle connections are closed");

    tunnel.write_all(b"still\n").await.unwrap();
    read_until_line(&mut tunnel, "still").await;
    echo.write_all(b"0\r\n\r\n").await.unwrap();
    timeout(LIMIT, echo.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, "0\r\n\r\n", "a request in flight gets its complete response");

    assert!(!served.ended.is_finished(), "a tunnel is still open");
    tunnel.shutdown().await.unwrap();
    timeout(LIMIT, served.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_head_over_http2_has_a_length_and_no_body() {
    let served = served().await;
    let io = TokioIo::new(TcpStream::connect(served.address).await.unwrap());
    let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::head("http://hello/size?bytes=7").body(Empty::<Bytes>::new()).unwrap();
    let response = timeout(LIMIT, sender.send_request(request)).await.unwrap().unwrap();
    assert_eq!(response.headers()["content-length"], "7");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "");
}
