//! HTTP/2 to pods: the limit of streams, several connections, and what a pod announces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rig::{Client, GENEROUS, PodBody, Rig, by_hand, get, ok, running};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

const HOST: &str = "hello.default.example.com";

/// An h2c pod that allows this many streams on a connection.
struct H2cPod {
    address: SocketAddr,
    /// Connections that carried a request, and those that are open.
    used: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl H2cPod {
    async fn start<F, R>(streams: u32, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<PodBody>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (used, open) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let accepting = tokio::spawn({
            let (used, open) = (used.clone(), open.clone());
            async move {
                let mut connections = JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let (handler, used, open) = (handler.clone(), used.clone(), open.clone());
                    connections.spawn(async move {
                        let requests = AtomicUsize::new(0);
                        let service = service_fn(move |request| {
                            if requests.fetch_add(1, Ordering::SeqCst) == 0 {
                                used.fetch_add(1, Ordering::SeqCst);
                            }
                            let response = handler(request);
                            async move { Ok::<_, Infallible>(response.await) }
                        });
                        open.fetch_add(1, Ordering::SeqCst);
                        let mut server = http2::Builder::new(TokioExecutor::new());
                        server.max_concurrent_streams(streams);
                        server.serve_connection(TokioIo::new(stream), service).await.ok();
                        open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            }
        });
        Self { address, used, open, accepting }
    }

    fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }
}

impl Drop for H2cPod {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn rig_with(pods: &[&H2cPod], spec: serde_json::Value) -> Rig {
    let rig = Rig::start().await;
    let mut whole = json!({"protocol": "h2c"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    rig.function("hello", whole);
    for pod in pods {
        rig.show_as(&format!("hello-00001-at-{}", pod.address.port()), "hello", running(), pod.address.port());
    }
    rig
}

/// Sends this many requests at once, each on a connection of its own.
fn crowd(to: SocketAddr, count: usize) -> JoinSet<StatusCode> {
    let mut requests = JoinSet::new();
    for _ in 0..count {
        requests.spawn(async move { get(to, HOST, "/").await.status });
    }
    requests
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let reached = timeout(GENEROUS, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(reached.await.is_ok(), "{what}");
}

/// Each request used to be sent to the HTTP library, which let it wait, until it timed out.
#[tokio::test]
async fn more_requests_than_the_pod_allows_streams_are_all_served() {
    let gate = Arc::new(Semaphore::new(0));
    let (inside, most) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let pod = H2cPod::start(2, {
        let (gate, inside, most) = (gate.clone(), inside.clone(), most.clone());
        move |_| {
            let (gate, inside, most) = (gate.clone(), inside.clone(), most.clone());
            async move {
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                inside.fetch_sub(1, Ordering::SeqCst);
                ok("hi")
            }
        }
    })
    .await;
    let rig = rig_with(&[&pod], json!({})).await;
    let requests = crowd(rig.public, 100);
    // Two streams on each of the connections.
    eventually("the pod has not as many requests as connections allow", || inside.load(Ordering::SeqCst) == 32).await;
    gate.add_permits(100);
    assert_eq!(requests.join_all().await, [StatusCode::OK; 100]);
    assert_eq!((most.load(Ordering::SeqCst), pod.used()), (32, 16));
    rig.in_flight("hello", 0).await;
}

/// Streams that never end leave streams for others, and another pod serves what the first one cannot take.
#[tokio::test]
async fn long_streams_do_not_starve_others() {
    let held = Arc::new(parking_lot::Mutex::new(vec![]));
    let stream = move |request: Request<Incoming>| {
        let held = held.clone();
        async move {
            if request.uri().path() != "/stream" {
                return ok("hi");
            }
            let (sender, body) = by_hand();
            sender.send(Frame::data("begun".into())).await.unwrap();
            held.lock().push(sender);
            Response::new(body)
        }
    };
    let pod = H2cPod::start(1, stream).await;
    let rig = rig_with(&[&pod], json!({})).await;
    let mut streams = vec![];
    for _ in 0..15 {
        let mut client = Client::connect(rig.public).await;
        let request = Request::get("/stream").header("host", HOST).body(Full::default().boxed()).unwrap();
        streams.push((client.begin(request).await, client));
    }
    let answers = crowd(rig.public, 20).join_all().await;
    assert_eq!(answers, [StatusCode::OK; 20]);
}

/// A crowd that waits for a pod opens one connection, and not one each.
#[tokio::test]
async fn a_crowd_shares_connections() {
    let pod = H2cPod::start(250, |_| async { ok("hi") }).await;
    let rig = Rig::start().await;
    rig.function("hello", json!({"protocol": "h2c"}));
    let requests = crowd(rig.public, 200);
    rig.queued("hello", 200).await;
    rig.show_as("hello-00001-x", "hello", running(), pod.address.port());
    assert_eq!(requests.join_all().await, [StatusCode::OK; 200]);
    assert!(pod.used() <= 4, "{} connections", pod.used());
}

/// A busy pod has several connections; what is idle beside another one is closed.
#[tokio::test]
async fn a_busy_pod_has_several_connections() {
    let gate = Arc::new(Semaphore::new(0));
    let pod = H2cPod::start(250, {
        let gate = gate.clone();
        move |_| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                ok("hi")
            }
        }
    })
    .await;
    let rig = rig_with(&[&pod], json!({"scaling": {"concurrencyLimit": 200}})).await;
    let mut requests = JoinSet::new();
    for sent in 1..=150 {
        requests.spawn({
            let to = rig.public;
            async move { get(to, HOST, "/").await.status }
        });
        rig.in_flight("hello", sent).await;
    }
    eventually("one connection carries all streams", || pod.used() == 4).await;
    gate.add_permits(150);
    assert_eq!(requests.join_all().await, [StatusCode::OK; 150]);
    assert!(pod.open.load(Ordering::SeqCst) >= 4);
}

/// A pod that closes each connection after a few requests (`MaxConnectionAge` of gRPC servers) loses none.
#[tokio::test]
async fn no_request_is_lost_when_a_pod_goes_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let accepting = tokio::spawn({
        let connections = connections.clone();
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (enough, connections) = (Arc::new(tokio::sync::Notify::new()), connections.clone());
                let requests = AtomicUsize::new(0);
                let service = service_fn({
                    let enough = enough.clone();
                    move |request: Request<Incoming>| {
                        match requests.fetch_add(1, Ordering::SeqCst) {
                            0 => drop(connections.fetch_add(1, Ordering::SeqCst)),
                            5 => enough.notify_one(),
                            _ => {}
                        }
                        async move {
                            request.into_body().collect().await.unwrap();
                            Ok::<_, Infallible>(ok("hi"))
                        }
                    }
                });
                tokio::spawn(async move {
                    let server = http2::Builder::new(TokioExecutor::new());
                    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
                    tokio::select! {
                        ended = connection.as_mut() => return ended.ok(),
                        () = enough.notified() => connection.as_mut().graceful_shutdown(),
                    }
                    connection.await.ok()
                });
            }
        }
    });
    let rig = Rig::start().await;
    rig.function("hello", json!({"protocol": "h2c"}));
    rig.show_as("hello-00001-x", "hello", running(), port);
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let to = rig.public;
        clients.spawn(async move {
            let mut client = Client::connect(to).await;
            for _ in 0..50 {
                // Not idempotent, and with a body: it is never sent again.
                let request = Request::post("/").header("host", HOST).body(Full::from("x").boxed()).unwrap();
                let answer = client.send(request).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            }
        });
    }
    clients.join_all().await;
    assert!(connections.load(Ordering::SeqCst) > 10, "the pod did not go away");
    accepting.abort();
}
