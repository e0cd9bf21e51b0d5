//! A flood on one function does not affect others.
//!
//! Shown by results and not by durations: all requests to the others are served while the flood still stands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{net::SocketAddr, sync::Arc};

use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rig::{Client, FakePod, GENEROUS, Rig, get, ok};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};

const STREAMS: usize = 100;

/// The response to a request of the flood.
type Told = (u16, Value);

/// Many requests to one host on few connections; dropping it disconnects them.
struct Flood {
    told: mpsc::UnboundedReceiver<Told>,
    _callers: JoinSet<()>,
}

impl Flood {
    async fn start(to: SocketAddr, host: &'static str, count: usize) -> Self {
        let (teller, told) = mpsc::unbounded_channel();
        let mut callers = JoinSet::new();
        for first in (0..count).step_by(STREAMS) {
            let io = TokioIo::new(TcpStream::connect(to).await.unwrap());
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            callers.spawn(async move { connection.await.unwrap_or_default() });
            for _ in first..count.min(first + STREAMS) {
                let (mut sender, teller) = (sender.clone(), teller.clone());
                callers.spawn(async move {
                    let request = Request::get(format!("http://{host}/")).body(Empty::<Bytes>::new()).unwrap();
                    let Ok(response) = sender.send_request(request).await else { return };
                    let status = response.status().as_u16();
                    let body = response.into_body().collect().await.unwrap().to_bytes();
                    teller.send((status, serde_json::from_slice(&body).unwrap_or_default())).ok();
                });
            }
        }
        Self { told, _callers: callers }
    }

    async fn told(&mut self, count: usize) -> Vec<Told> {
        let mut all = vec![];
        timeout(GENEROUS, self.told.recv_many(&mut all, count)).await.expect("nobody is told anything");
        while all.len() < count {
            all.push(timeout(GENEROUS, self.told.recv()).await.expect("too few are told something").unwrap());
        }
        all
    }
}

/// A pod that responds to nothing until it is released.
async fn stuck() -> (FakePod, Arc<Semaphore>) {
    let go = Arc::new(Semaphore::new(0));
    let pod = FakePod::start({
        let go = go.clone();
        move |_| {
            let go = go.clone();
            async move {
                drop(go.acquire().await);
                ok("flood")
            }
        }
    })
    .await;
    (pod, go)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_queued_requests_of_one_function_do_not_delay_others() {
    let rig = Rig::with(&["--max-queued-requests=40000", "--max-queued-requests-per-namespace=20000"]).await;
    let (pod, go) = stuck().await;
    let mut flooded =
        json!({"scaling": {"concurrencyLimit": 1}, "queue": {"maxRequests": 100_000, "maxBytes": "64Mi"}});
    rig.function("flood", flooded.clone());
    rig.start_pod("flood", &pod);
    let mut flood = Flood::start(rig.public, "flood.default.example.com", 10_001).await;
    rig.queued("flood", 10_000).await;

    // A warm function gets many requests at once.
    let calm = FakePod::saying("calm").await;
    rig.function("calm", json!({"scaling": {"concurrencyLimit": 2}}));
    rig.start_pod("calm", &calm);
    let callers = (0..8).map(|_| async {
        let mut client = Client::connect(rig.public).await;
        for _ in 0..50 {
            assert_eq!(client.get("calm.default.example.com", "/").await.text(), "calm");
        }
    });
    join_all(callers).await;
    assert_eq!(calm.requests.load(std::sync::atomic::Ordering::SeqCst), 400);
    // A cold function is woken.
    rig.function("cold", json!({}));
    let call = tokio::spawn(get(rig.public, "cold.default.example.com", "/"));
    while rig.wake().await.revision != "cold-00001" {}
    let cold = FakePod::saying("cold").await;
    rig.start_pod("cold", &cold);
    assert_eq!(call.await.unwrap().text(), "cold");
    rig.queued("flood", 10_000).await;

    // And no request of the flood was lost.
    assert_eq!(pod.most.load(std::sync::atomic::Ordering::SeqCst), 1);
    flooded["scaling"]["concurrencyLimit"] = json!(50);
    rig.function("flood", flooded);
    go.add_permits(1 << 20);
    let told = flood.told(10_001).await;
    assert!(told.iter().all(|(status, _)| *status == 200), "{:?}", told.iter().find(|(status, _)| *status != 200));
    assert!(pod.most.load(std::sync::atomic::Ordering::SeqCst) <= 50);
}

#[tokio::test]
async fn a_flood_leaves_capacity_of_its_namespace_to_the_next_function() {
    let rig = Rig::with(&["--max-queued-requests=100", "--max-queued-requests-per-namespace=50"]).await;
    rig.function("flood", json!({}));
    let mut flood = Flood::start(rig.public, "flood.default.example.com", 60).await;
    // Four fifths of the namespace's cap are queued, and the others are rejected with the reason.
    for (status, problem) in flood.told(20).await {
        assert_eq!((status, problem["reason"].as_str()), (429, Some("NamespaceRequests")), "{problem}");
    }
    rig.queued("flood", 40).await;
    let metric = r#"rouse_activator_rejected_total{namespace="default",function="flood",reason="namespace-requests"}"#;
    rig.metric(metric, 20).await;
    rig.metric("rouse_activator_queued_requests", 40).await;
    rig.function("calm", json!({}));
    let calls: Vec<_> = (0..5).map(|_| tokio::spawn(get(rig.public, "calm.default.example.com", "/"))).collect();
    rig.queued("calm", 5).await;
    let calm = FakePod::saying("calm").await;
    rig.start_pod("calm", &calm);
    for answer in join_all(calls).await {
        assert_eq!(answer.unwrap().text(), "calm");
    }
    // Queued requests are served when the pod starts.
    let pod = FakePod::saying("flood").await;
    rig.start_pod("flood", &pod);
    assert!(flood.told(40).await.iter().all(|(status, _)| *status == 200));
    rig.metric("rouse_activator_queued_requests", 0).await;
}

#[tokio::test]
async fn process_caps_are_enforced() {
    let rig = Rig::with(&["--max-queued-requests=10", "--max-queued-requests-per-namespace=10"]).await;
    for name in ["a", "b", "c", "d"] {
        rig.function(name, json!({}));
    }
    let mut floods = vec![];
    for host in ["a.default.example.com", "b.default.example.com", "c.default.example.com", "d.default.example.com"] {
        floods.push(Flood::start(rig.public, host, 20).await);
    }
    // Which of them are first is open; how many are queued is not.
    for flood in &mut floods {
        for (status, problem) in flood.told(12).await {
            assert_eq!((status, problem["type"].as_str()), (429, Some("https://rouse.dev/problems/queue-full")));
            assert!(
                ["NamespaceRequests", "ProcessRequests"].contains(&problem["reason"].as_str().unwrap()),
                "{problem}"
            );
        }
    }
    rig.metric("rouse_activator_queued_requests", 8).await;
    drop(floods);
    rig.metric("rouse_activator_queued_requests", 0).await;
}

#[tokio::test]
async fn a_rate_limited_wake_is_reported() {
    let rig = Rig::with(&["--wakes=1/1h"]).await;
    rig.function("hello", json!({}));
    let call = tokio::spawn(get(rig.public, "hello.default.example.com", "/"));
    rig.wake().await;
    let pod = FakePod::saying("hi").await;
    let name = rig.start_pod("hello", &pod);
    assert_eq!(call.await.unwrap().text(), "hi");
    rig.pod_deleted(rig::pod_object(&name, "hello", "uid-1", "hello-00001", rig::running(), pod.address.port()));
    let answer = get(rig.public, "hello.default.example.com", "/").await;
    assert_eq!((answer.status.as_u16(), answer.json()["reason"].as_str().unwrap()), (429, "FunctionWakes"));
    assert!(answer.json()["type"].as_str().unwrap().ends_with("/wake-throttled"));
    assert!(answer.header("retry-after").parse::<u64>().unwrap() > 3500);
    let metric = r#"rouse_activator_rejected_total{namespace="default",function="hello",reason="function-wakes"}"#;
    rig.metric(metric, 1).await;
}

#[tokio::test]
async fn a_panic_in_the_wake_loses_no_request() {
    let rig = Rig::start().await;
    rig.scaler.defects.store(2, std::sync::atomic::Ordering::SeqCst);
    rig.function("hello", json!({}));
    let call = tokio::spawn(get(rig.public, "hello.default.example.com", "/"));
    assert_eq!(rig.wake().await.revision, "hello-00001");
    rig.metric(r#"rouse_activator_panics_total{task="wake"}"#, 2).await;
    let pod = FakePod::saying("hi").await;
    rig.start_pod("hello", &pod);
    assert_eq!(call.await.unwrap().text(), "hi");
    assert_eq!(get(rig.public, "hello.default.example.com", "/").await.text(), "hi");
}
