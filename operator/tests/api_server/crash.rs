//! Crash of the operator after its n-th write, for every n: its successor reaches the same result.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use kube::{
    Client,
    client::{Body, ClientBuilder},
};
use rouse_operator::{cluster::client::CountWrites, telemetry::metrics::Metrics};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::{Layer, Service};

use crate::rig::{LIMIT, Rig, condition, config, eventually};

/// Layer that forwards `left` writes. It notifies `dead` when the API server has processed the last one, whose response
/// it drops.
#[derive(Clone)]
struct DieAfter {
    left: Arc<AtomicUsize>,
    dead: Arc<Notify>,
}

impl<S> Layer<S> for DieAfter {
    type Service = Dying<S>;

    fn layer(&self, inner: S) -> Dying<S> {
        Dying { inner, plan: self.clone() }
    }
}

#[derive(Clone)]
struct Dying<S> {
    inner: S,
    plan: DieAfter,
}

impl<S, B> Service<Request<Body>> for Dying<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let counts = request.method() != Method::GET && !request.uri().path().contains("/leases");
        let before = counts.then(|| {
            self.plan
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(1)))
                .unwrap_or(0)
        });
        if before == Some(0) {
            // Already crashed: no more requests.
            return Box::pin(std::future::pending());
        }
        let (answer, dead) = (self.inner.call(request), self.plan.dead.clone());
        Box::pin(async move {
            let answer = answer.await;
            if before == Some(1) {
                dead.notify_one();
                std::future::pending::<()>().await;
            }
            answer
        })
    }
}

/// Scenario of a Function, in steps that each end in a stable state.
async fn scenario(rig: &Rig, dies: Option<(&DieAfter, Client)>) -> Value {
    let mut operator = match &dies {
        Some((_, client)) => rig.operator_with("first", client.clone(), Metrics::default()),
        None => rig.operator().await,
    };
    let play = async {
        rig.apply("hello", &json!({"image": "i:1", "hosts": ["shop.example.org"]})).await;
        rig.function("hello", "has a status", |f| f.status.is_some()).await;
        rig.pods_ready("hello-00001", 1).await;
        rig.function("hello", "is ready", |f| condition(f, "Ready").0 == "True").await;
        rig.apply("hello", &json!({"image": "i:2", "hosts": ["shop.example.org"]})).await;
        rig.function("hello", "has a second revision", |f| {
            f.status.as_ref().unwrap().latest_revision.as_deref() == Some("hello-00002")
        })
        .await;
        rig.pods_ready("hello-00002", 1).await;
        rig.function("hello", "has moved its traffic", |f| {
            f.status.as_ref().unwrap().traffic[0].revision == "hello-00002"
        })
        .await;
        // A rollout in steps; the operator may crash during any of them.
        let steps = json!({"steps": [50], "interval": "1s"});
        rig.apply("hello", &json!({"image": "i:3", "hosts": ["shop.example.org"], "rollout": steps})).await;
        rig.function("hello", "has a third revision", |f| {
            f.status.as_ref().unwrap().latest_revision.as_deref() == Some("hello-00003")
        })
        .await;
        // The maximum number of pods for all traffic, when each of two revisions serves half of it with one pod.
        rig.pods_ready("hello-00003", 2).await;
        let all = |f: &rouse_crds::Function| {
            let status = f.status.as_ref().unwrap();
            status.rollout.is_none() && status.traffic.len() == 1 && status.traffic[0].revision == "hello-00003"
        };
        rig.function("hello", "has moved its traffic in steps", all).await;
        eventually("the Ingress exists", async || rig.ingresses().get_opt(&rig.ingress()).await.unwrap().is_some())
            .await;
    };
    match dies {
        None => play.await,
        Some((plan, _)) => {
            let mut play = std::pin::pin!(play);
            let died = tokio::select! {
                () = &mut play => false,
                () = plan.dead.notified() => true,
            };
            if died {
                operator.kill().await;
                // The Lease of the crashed operator is deleted instead of waiting for its expiry.
                let leases: kube::Api<k8s_openapi::api::coordination::v1::Lease> =
                    kube::Api::namespaced(rig.client.clone(), &rig.system);
                leases.delete("rouse-operator", &kube::api::DeleteParams::default()).await.unwrap();
                operator = rig.operator().await;
                tokio::time::timeout(LIMIT, play).await.expect("the successor brings it to an end");
            }
        }
    }
    // The last state is stable.
    let mut state = rig.state().await;
    let mut same = 0;
    while same < 3 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = rig.state().await;
        same = if now == state { same + 1 } else { 0 };
        state = now;
    }
    operator.stop().await;
    serde_json::from_str(&state.to_string().replace(&rig.namespace, "NAMESPACE")).unwrap()
}

#[tokio::test]
async fn the_successor_reaches_the_same_result_after_a_crash_at_any_write() {
    let rig = Rig::new("whole").await;
    let whole = scenario(&rig, None).await;
    rig.end(None).await;
    assert_eq!(whole["deployments"].as_array().unwrap().len(), 3);
    // The scenario has about 25 writes, including Events. With a higher number the operator does not crash.
    let mut undisturbed = false;
    for write in 1..=60 {
        let rig = Rig::new("crash").await;
        let plan = DieAfter { left: Arc::new(AtomicUsize::new(write)), dead: Arc::default() };
        let builder = ClientBuilder::try_from(config().await).unwrap();
        let client = builder.with_layer(&plan).with_layer(&CountWrites(Metrics::default())).build();
        let state = scenario(&rig, Some((&plan, client))).await;
        let reached = plan.left.load(Ordering::SeqCst) == 0;
        rig.end(None).await;
        assert_eq!(state, whole, "after write {write}");
        if !reached {
            assert!(write > 8, "the scenario has more than {write} writes");
            undisturbed = true;
            break;
        }
    }
    assert!(undisturbed, "the scenario never ended before the crash");
}
