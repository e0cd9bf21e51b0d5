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
use http::Response;
use http_body_util::{BodyExt as _, Full};
use rig::{FakePod, GENEROUS, Rig, get, ok, running};
use serde_json::{Value, json};
use tokio::time::timeout;

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
