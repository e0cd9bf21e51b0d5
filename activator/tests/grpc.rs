//! gRPC: errors of the activator as gRPC statuses, and the deadline of the client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rig::{Client, FakePod, GENEROUS, Rig, get, no_image, ok, raw_pod, running, warm};
use serde_json::json;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

const HOST: &str = "hello.default.example.com";
const PATH: &str = "/test.Service/Method";

type Call = Request<Full<Bytes>>;
type Sender = SendRequest<Full<Bytes>>;

async fn connect(rig: &Rig) -> Sender {
    let io = TokioIo::new(TcpStream::connect(rig.public).await.unwrap());
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn call(host: &str, path: &str) -> Call {
    Request::post(format!("http://{host}{path}"))
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .body(Full::from("message"))
        .unwrap()
}

fn with_timeout(value: &str) -> Call {
    let mut call = call(HOST, PATH);
    call.headers_mut().insert("grpc-timeout", value.parse().unwrap());
    call
}

/// Sends a call; the response is waited for by a task.
fn send(sender: &mut Sender, call: Call) -> JoinHandle<Refused> {
    let response = sender.send_request(call);
    tokio::spawn(async move { Refused::of(timeout(GENEROUS, response).await.expect("no response").unwrap()).await })
}

/// A response that has to be a single head.
#[derive(Debug)]
struct Refused {
    status: u16,
    headers: HeaderMap,
    /// The head ended the stream.
    trailers_only: bool,
}

impl Refused {
    async fn of(response: Response<hyper::body::Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let trailers_only = http_body::Body::is_end_stream(&body);
        assert!(timeout(GENEROUS, body.collect()).await.unwrap().unwrap().to_bytes().is_empty());
        Self { status: parts.status.as_u16(), headers: parts.headers, trailers_only }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn assert(&self, grpc_status: &str, problem: &str) {
        assert_eq!(
            (self.status, self.trailers_only, self.header("content-type")),
            (200, true, "application/grpc"),
            "{problem}: {self:?}"
        );
        assert_eq!((self.header("grpc-status"), self.header("rouse-problem")), (grpc_status, problem), "{self:?}");
        assert!(!self.header("grpc-message").is_empty() && !self.header("x-request-id").is_empty(), "{self:?}");
    }
}

/// Every problem that a request can meet, as a gRPC client sees it.
#[tokio::test]
async fn errors_are_grpc_statuses() {
    let rig = Rig::start().await;
    let mut client = connect(&rig).await;
    let h2c = |more: serde_json::Value| {
        let mut spec = json!({"protocol": "h2c"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    rig.function("routed", h2c(json!({"routes": [{"path": "/other.Service"}]})));
    rig.function("reads", h2c(json!({"routes": [{"methods": ["GET"]}]})));
    rig.function("cold", h2c(json!({"timeouts": {"coldStart": "20ms"}})));
    rig.function("full", h2c(json!({"queue": {"maxRequests": 1}})));
    rig.function("failing", h2c(json!({})));
    rig.function("slow", h2c(json!({"timeouts": {"response": "20ms"}})));
    rig.function("broken", json!({}));
    rig.function("deleted", h2c(json!({})));
    rig.show("failing", no_image());
    let slow = FakePod::start(|_| std::future::pending()).await;
    rig.start_pod("slow", &slow);
    rig.show_as("broken-00001-x", "broken", running(), raw_pod(|_, _| async { None }).await);

    let host = |name: &str| format!("{name}.default.example.com");
    let _first = send(&mut client, call(&host("full"), PATH));
    rig.queued("full", 1).await;
    let deleted = send(&mut client, call(&host("deleted"), PATH));
    rig.queued("deleted", 1).await;
    rig.delete("deleted");
    deleted.await.unwrap().assert("5", "function-deleted");
    for (name, path, status, problem) in [
        ("nobody", PATH, "5", "unknown-host"),
        ("routed", PATH, "12", "unknown-path"),
        ("routed", "/x/../other.Service/Method", "13", "ambiguous-path"),
        ("reads", PATH, "12", "method-not-allowed"),
        ("cold", PATH, "14", "cold-start-timeout"),
        ("full", PATH, "8", "queue-full"),
        ("failing", PATH, "14", "function-failing"),
        ("slow", PATH, "4", "response-timeout"),
        ("broken", PATH, "14", "bad-response"),
    ] {
        let refused = send(&mut client, call(&host(name), path)).await.unwrap();
        refused.assert(status, problem);
        let retry: HashMap<_, _> = ["retry-after", "grpc-retry-pushback-ms"].map(|h| (h, refused.header(h))).into();
        if problem == "queue-full" {
            assert_eq!((retry["retry-after"], retry["grpc-retry-pushback-ms"]), ("1", "1000"));
        } else if problem == "function-failing" {
            let (seconds, ms) = (retry["retry-after"].parse::<u64>(), retry["grpc-retry-pushback-ms"].parse::<u64>());
            assert_eq!(seconds.unwrap(), ms.unwrap().div_ceil(1000));
        } else {
            assert_eq!((retry["retry-after"], retry["grpc-retry-pushback-ms"]), ("", ""), "{problem}");
        }
    }
    // The metrics report what happened, and not the 200 of the head.
    rig.metric(r#"rouse_activator_requests_total{namespace="default",function="cold",code="5xx"}"#, 1).await;
}

/// What is not gRPC gets a problem document, gRPC-Web too.
#[tokio::test]
async fn other_requests_get_problem_documents() {
    let rig = Rig::start().await;
    for content_type in ["application/grpc-web+proto", "application/json"] {
        let request = Request::post("/").header("host", "nobody.example.com").header("content-type", content_type);
        let refused = Client::connect(rig.public).await.send(request.body(Full::from("x").boxed()).unwrap()).await;
        assert_eq!((refused.status.as_u16(), refused.header("grpc-status")), (404, ""));
        assert_eq!(refused.json()["type"], "https://rouse.dev/problems/unknown-host");
    }
}

/// A function cannot set the header that names Rouse's own problems.
#[tokio::test]
async fn functions_cannot_forge_problems() {
    let pod = FakePod::start(|_| async {
        Response::builder().header("rouse-problem", "queue-full").body(Full::default().boxed()).unwrap()
    })
    .await;
    let rig = warm(&pod, json!({"protocol": "h2c"})).await;
    assert_eq!(get(rig.public, HOST, "/").await.header("rouse-problem"), "");
}

#[tokio::test]
async fn a_parked_call_ends_at_the_deadline_of_its_client() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"protocol": "h2c"}));
    let mut client = connect(&rig).await;
    // What the grammar does not allow is ignored.
    let (malformed, zero) = (send(&mut client, with_timeout("20ms")), send(&mut client, with_timeout("0n")));
    let refused = send(&mut client, with_timeout("20m")).await.unwrap();
    refused.assert("4", "deadline-exceeded");
    rig.queued("hello", 2).await;
    rig.metric("rouse_activator_client_disconnects_total", 0).await;
    let pod = FakePod::saying("").await;
    rig.start_pod("hello", &pod);
    for call in [malformed, zero] {
        assert_eq!(call.await.unwrap().header("rouse-problem"), "");
    }
}

/// The deadline also ends a call in a pod, and is not counted as a failure of the pod: the client chose it.
#[tokio::test]
async fn a_call_in_a_pod_ends_at_the_deadline_of_its_client() {
    let pod = FakePod::start(|_| std::future::pending()).await;
    let rig = warm(&pod, json!({"protocol": "h2c"})).await;
    let mut client = connect(&rig).await;
    send(&mut client, with_timeout("20m")).await.unwrap().assert("4", "deadline-exceeded");
    rig.in_flight("hello", 0).await;
    // The request in the pod was canceled.
    timeout(GENEROUS, async {
        while pod.now.load(std::sync::atomic::Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
    .expect("the request stays in the pod");
}

/// A pod is told what remains of the deadline after the wait, and otherwise what the client sent.
#[tokio::test]
async fn the_time_in_the_queue_counts_against_the_deadline() {
    let pod = FakePod::start(|request| async move { ok(request.headers()["grpc-timeout"].as_bytes().to_vec()) }).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({"protocol": "h2c"}));
    let mut client = connect(&rig).await;
    let parked = client.send_request(with_timeout("1H"));
    rig.queued("hello", 1).await;
    rig.start_pod("hello", &pod);
    let told = |response: Response<hyper::body::Incoming>| async {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    };
    let remains = told(timeout(GENEROUS, parked).await.unwrap().unwrap()).await;
    let ms: u64 = remains.strip_suffix('m').unwrap_or_else(|| panic!("{remains}")).parse().unwrap();
    assert!(ms <= 3_600_000 && ms > 3_600_000 - 2 * 60_000, "{remains}");
    let warm = timeout(GENEROUS, client.send_request(with_timeout("1H"))).await.unwrap().unwrap();
    assert_eq!(told(warm).await, "1H");
}
