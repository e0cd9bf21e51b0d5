//! Probes of a whole activator: by the readiness check, one at a time, and none once the kubelet reports the pod as
//! ready.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod rig;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use rig::{FakePod, GENEROUS, PodBody, Rig, get, ok, pod_object, running};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};

const HOST: &str = "hello.default.example.com";

/// A pod whose readiness check fails this many times, slowly, and which counts concurrent and total checks.
struct Starting {
    pod: FakePod,
    checks: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

async fn starting(failures: usize) -> Starting {
    let (checks, now, most) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let counted = (checks.clone(), most.clone());
    let pod = FakePod::start(move |request| {
        let (checks, now, most) = (checks.clone(), now.clone(), most.clone());
        async move {
            if request.uri().path() != "/healthz" {
                return ok("hi");
            }
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(30)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            let fails = checks.fetch_add(1, Ordering::SeqCst) < failures;
            let body = Full::new(Bytes::new()).boxed();
            Response::builder().status(if fails { 503 } else { 200 }).body(body).unwrap()
        }
    })
    .await;
    let (checks, most) = counted;
    Starting { pod, checks, most }
}

fn ready() -> Value {
    let mut status = running();
    status["conditions"].as_array_mut().unwrap().push(json!({"type": "Ready", "status": "True"}));
    status
}

#[tokio::test]
async fn a_pod_gets_its_first_request_when_its_readiness_check_succeeds() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"readiness": {"path": "/healthz"}}));
    let starting = starting(5).await;
    rig.start_pod("hello", &starting.pod);
    assert_eq!(get(rig.public, HOST, "/").await.text(), "hi");
    assert_eq!(starting.checks.load(Ordering::SeqCst), 6);
    assert_eq!(starting.most.load(Ordering::SeqCst), 1, "one probe at a time");
    rig.metric("rouse_activator_probes_total", 6).await;
}

#[tokio::test]
async fn a_pod_that_is_ready_is_no_longer_probed() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"readiness": {"path": "/healthz"}}));
    rig.function("other", json!({"readiness": {"path": "/healthz"}}));
    let [one, other] = [starting(usize::MAX).await, starting(usize::MAX).await];
    let name = rig.start_pod("hello", &one.pod);
    let reached = async |checks: &AtomicUsize, count: usize| {
        let reached = async {
            while checks.load(Ordering::SeqCst) < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(GENEROUS, reached).await.expect("the pod is not probed");
    };
    reached(&one.checks, 3).await;
    rig.show_as(&name, "hello", ready(), one.pod.address.port());
    assert_eq!(get(rig.public, HOST, "/").await.text(), "hi");
    let before = one.checks.load(Ordering::SeqCst);
    // Another pod that is probed is the clock.
    rig.start_pod("other", &other.pod);
    reached(&other.checks, 10).await;
    let after = one.checks.load(Ordering::SeqCst);
    assert!(after <= before + 1, "{before} checks, and then {after}");
}

/// A pod that is probed and is never ready. Its checks are the clock of a test that nothing happens to another pod.
async fn clock(rig: &Rig) -> Starting {
    rig.function("clock", json!({"readiness": {"path": "/healthz"}}));
    let clock = starting(usize::MAX).await;
    rig.start_pod("clock", &clock.pod);
    clock
}

impl Starting {
    /// Waits for ten more probes.
    async fn passes(&self) {
        let until = self.checks.load(Ordering::SeqCst) + 10;
        let reached = async {
            while self.checks.load(Ordering::SeqCst) < until {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(GENEROUS, reached).await.expect("the clock stands still");
    }
}

/// A pod object of `hello-00001` whose container has these fields.
fn probed(name: &str, status: Value, pod: &FakePod, fields: &Value) -> Value {
    let mut object = pod_object(name, "hello", "uid-1", "hello-00001", status, pod.address.port());
    object["spec"]["containers"][0].as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    object
}

fn restarted(mut status: Value, restarts: i32) -> Value {
    status["containerStatuses"] = json!([{"name": "function", "restartCount": restarts, "state": {"running": {}}}]);
    status
}

/// What the activator cannot check itself, it leaves to the kubelet.
#[tokio::test]
async fn a_pod_with_another_readiness_probe_waits_for_the_kubelet() {
    let rig = Rig::start().await;
    let clock = clock(&rig).await;
    for (number, fields) in [
        json!({"readinessProbe": {"exec": {"command": ["/no-such-program"]}}}),
        json!({"readinessProbe": {"httpGet": {"path": "/ready", "port": 1}}}),
        json!({"readinessProbe": {"httpGet": {"path": "/app-health/function/readyz", "port": 15020}}}),
        json!({"startupProbe": {"exec": {"command": ["/warm-up"]}}}),
    ]
    .into_iter()
    .enumerate()
    {
        rig.function("hello", json!({}));
        let pod = FakePod::saying("hi").await;
        let name = format!("p{number}");
        rig.show_pod(probed(&name, running(), &pod, &fields));
        let call = tokio::spawn(get(rig.public, HOST, "/"));
        rig.queued("hello", 1).await;
        clock.passes().await;
        assert_eq!(pod.requests.load(Ordering::SeqCst), 0, "{fields}: neither the request nor a stray probe");
        rig.show_pod(probed(&name, ready(), &pod, &fields));
        assert_eq!(call.await.unwrap().text(), "hi");
        // It is unready by a probe that is stronger than ours, and its restart does not change that.
        for status in [running(), restarted(running(), 1)] {
            rig.show_pod(probed(&name, status, &pod, &fields));
            let call = tokio::spawn(get(rig.public, HOST, "/"));
            rig.queued("hello", 1).await;
            clock.passes().await;
            assert_eq!(pod.requests.load(Ordering::SeqCst), 1, "{fields}");
            call.abort();
            rig.queued("hello", 0).await;
        }
        rig.show_pod(probed(&name, restarted(ready(), 1), &pod, &fields));
        assert_eq!(get(rig.public, HOST, "/").await.text(), "hi");
        rig.delete("hello");
    }
}

#[tokio::test]
async fn a_pod_that_became_unready_serves_again_by_the_kubelet_or_after_a_restart() {
    let rig = Rig::start().await;
    let clock = clock(&rig).await;
    rig.function("hello", json!({}));
    let pod = FakePod::saying("hi").await;
    let show = |status| rig.show_pod(probed("p", status, &pod, &json!({})));
    show(restarted(ready(), 1));
    assert_eq!(get(rig.public, HOST, "/").await.text(), "hi");
    show(restarted(running(), 1));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    clock.passes().await;
    assert_eq!(pod.requests.load(Ordering::SeqCst), 1, "that it listens is weaker than what the kubelet knows");
    show(restarted(running(), 2));
    assert_eq!(call.await.unwrap().text(), "hi", "a new process, which the probe may find earlier");
    show(restarted(ready(), 2));
    show(restarted(running(), 2));
    let call = tokio::spawn(get(rig.public, HOST, "/"));
    rig.queued("hello", 1).await;
    show(restarted(ready(), 2));
    assert_eq!(call.await.unwrap().text(), "hi");
}

#[tokio::test]
async fn one_failed_connect_does_not_exclude_a_pod_that_the_kubelet_holds_ready() {
    for fields in [
        // Asked on the function's port by an older release; it has no such path.
        json!({}),
        json!({"readinessProbe": {"httpGet": {"path": "/ready", "port": 1}}}),
    ] {
        let rig = Rig::start().await;
        rig.function("hello", json!({"readiness": {"path": "/missing"}, "timeouts": {"coldStart": "20s"}}));
        let respond = |request: http::Request<hyper::body::Incoming>| async move {
            let mut response = ok("hi");
            if request.uri().path() == "/missing" {
                *response.status_mut() = http::StatusCode::NOT_FOUND;
            }
            response
        };
        let pod = FakePod::start(respond).await;
        rig.show_pod(probed("p", ready(), &pod, &fields));
        assert_eq!(get(rig.public, HOST, "/").await.text(), "hi");
        let address = pod.address;
        drop(pod);
        let call = tokio::spawn(get(rig.public, HOST, "/"));
        rig.queued("hello", 1).await;
        let _pod = FakePod::on(TcpListener::bind(address).await.unwrap(), respond);
        assert_eq!(call.await.unwrap().text(), "hi", "{fields}");
    }
}

/// Responds to `grpc.health.v1.Health/Check` with these statuses one after the other, the last one for ever: a message, or
/// a status without one.
fn health(
    request: &http::Request<hyper::body::Incoming>,
    step: &AtomicUsize,
    statuses: &[Result<u8, &str>],
) -> Response<PodBody> {
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    let step = step.fetch_add(1, Ordering::SeqCst).min(statuses.len() - 1);
    let mut response = Response::builder().header("content-type", "application/grpc");
    match statuses[step] {
        Ok(serving) => {
            let trailers =
                HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
            let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, serving]);
            let frames = [Ok::<_, std::convert::Infallible>(Frame::data(message)), Ok(Frame::trailers(trailers))];
            response.body(BodyExt::boxed(StreamBody::new(futures::stream::iter(frames)))).unwrap()
        }
        Err(status) => {
            response = response.header("grpc-status", status);
            response.body(Full::new(Bytes::new()).boxed()).unwrap()
        }
    }
}

#[tokio::test]
async fn a_grpc_pod_gets_its_first_request_when_its_health_check_succeeds() {
    let rig = Rig::start().await;
    rig.function("hello", json!({"protocol": "h2c"}));
    let checks = Arc::new(AtomicUsize::new(0));
    let (early, seen) = (Arc::new(AtomicUsize::new(0)), checks.clone());
    let pod = FakePod::start({
        let early = early.clone();
        move |request| {
            let (early, checks) = (early.clone(), checks.clone());
            async move {
                // Not implemented yet, unknown service, not serving, and serving.
                let statuses = [Err("12"), Err("5"), Ok(0), Ok(2), Ok(1)];
                if request.uri().path() == "/grpc.health.v1.Health/Check" {
                    return health(&request, &checks, &statuses);
                }
                early.fetch_add(usize::from(checks.load(Ordering::SeqCst) < statuses.len()), Ordering::SeqCst);
                ok("hi")
            }
        }
    })
    .await;
    rig.show_pod(probed("p", running(), &pod, &json!({"readinessProbe": {"grpc": {"port": pod.address.port()}}})));
    assert_eq!(get(rig.public, HOST, "/").await.text(), "hi");
    assert_eq!((seen.load(Ordering::SeqCst), early.load(Ordering::SeqCst)), (5, 0));
}
