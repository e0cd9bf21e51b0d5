use super::*;

use http::{Request, Response};
use kube::{client::Body, core::DeserializeGuard, runtime::watcher::Event};
use rouse_crds::{
    demand::{PodDemand, RevisionDemand, VERSION},
    names::{FUNCTION_LABEL, FUNCTION_UID_LABEL, POD_DELETION_COST_ANNOTATION, REVISION_LABEL},
};
use serde_json::{Value, json};

/// A scaler over caches that the test fills, and an API server that records writes and responds with `status`.
struct Rig {
    scaler: Arc<Scaler>,
    writes: Arc<Mutex<Vec<(String, Value)>>>,
    status: Arc<Mutex<u16>>,
}

const UID: &str = "function-uid";

fn key() -> FunctionKey {
    FunctionKey::new("ns", "f")
}

fn source() -> Source {
    Source { address: ([10, 0, 0, 1], 9090).into(), pod: None }
}

impl Rig {
    fn new(scaling: &Value) -> Self {
        Self::of(&json!({"image": "i", "scaling": scaling}), None)
    }

    /// A Function with this spec and this `status.idleHistogram`.
    fn of(spec: &Value, histogram: Option<&str>) -> Self {
        let (writes, status) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(200)));
        let (recorded, status_code) = (Arc::clone(&writes), Arc::clone(&status));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (recorded, status_code) = (Arc::clone(&recorded), *status_code.lock());
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect_bytes().await?;
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                if path.contains("/events") {
                    recorded.lock().push((path, body.clone()));
                    return Ok::<_, kube::Error>(Response::new(Body::from(body.to_string().into_bytes())));
                }
                let response = if status_code == 200 {
                    let response = if path.contains("/functions/") {
                        json!({"apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "metadata": {"name": "f"}, "spec": {"image": "i"}})
                    } else {
                        json!({"metadata": {}, "spec": {}, "status": {"replicas": 0}})
                    };
                    recorded.lock().push((path, body));
                    response
                } else {
                    json!({"kind": "Status", "status": "Failure", "code": status_code, "reason": "Conflict", "message": "m"})
                };
                let response = Body::from(response.to_string().into_bytes());
                Ok(Response::builder().status(status_code).body(response).unwrap())
            }
        });
        let client = Client::new(service, "default");
        let caches = Caches::default();
        let events = Events::new(client.clone(), "test");
        let scaler = Scaler::new(client, caches, events, Metrics::default(), Arc::default());
        let rig = Self { scaler: Arc::new(scaler), writes, status };
        rig.function(spec, histogram);
        rig
    }

    /// Updates the cached Function.
    fn function(&self, spec: &Value, histogram: Option<&str>) {
        let function = json!({
            "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
            "metadata": {"namespace": "ns", "name": "f", "uid": UID},
            "spec": spec,
            "status": {
                "latestRevision": "f-00001",
                "traffic": [{"revision": "f-00001", "percent": 100, "latest": true}],
                "conditions": [{"type": "RevisionReady", "status": "True", "reason": "PodReady", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "idleHistogram": histogram,
            },
        });
        let function = Event::Apply(DeserializeGuard(Ok(serde_json::from_value(function).unwrap())));
        self.scaler.caches.functions.apply(function);
    }

    /// Updates the cached Deployment.
    fn deployment(&self, version: &str, desired: u32, ready: u32) {
        let deployment = json!({
            "metadata": {
                "namespace": "ns", "name": "f-00001", "uid": "deployment-uid", "resourceVersion": version,
                "labels": {FUNCTION_LABEL: "f"}, "creationTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "name": "f", "uid": UID, "controller": true}],
            },
            "spec": {"replicas": desired}, "status": {"replicas": ready, "readyReplicas": ready},
        });
        self.scaler.caches.deployments.apply(Event::Apply(serde_json::from_value(deployment).unwrap()));
    }

    fn pod(&self, name: &str, created: &str, cost: Option<&str>) {
        let pod = json!({
            "metadata": {
                "namespace": "ns", "name": name, "creationTimestamp": created,
                "labels": {FUNCTION_LABEL: "f", REVISION_LABEL: "f-00001", FUNCTION_UID_LABEL: UID, "pod-template-hash": "5d9f"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "f-00001-5d9f", "uid": "u", "controller": true}],
                "annotations": cost.map(|c| json!({"controller.kubernetes.io/pod-deletion-cost": c})),
            },
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        self.scaler.caches.pods.apply(Event::Apply(serde_json::from_value(pod).unwrap()));
    }

    fn activator(&self) {
        self.scaler.set_sources(&HashMap::from([(source(), true)]));
    }

    /// Applies a frame with these requests in flight.
    fn frame(&self, in_flight: u64, arrivals: u64, request_us: u64) {
        let revision = RevisionDemand {
            namespace: "ns".into(),
            function: "f".into(),
            revision: "f-00001".into(),
            in_flight,
            arrivals,
            request_us,
            ..RevisionDemand::default()
        };
        let at_us = u64::try_from(self.scaler.now().as_micros()).unwrap();
        let frame =
            Frame { version: VERSION, process: "a".into(), sequence: 0, at_us, more: false, revisions: vec![revision] };
        self.scaler.apply_frame(&source(), frame);
    }

    /// Applies a frame of an activator with its requests in each pod, and whether it has stopped sending to the pod.
    fn pods_frame(&self, source: &Source, arrivals: u64, pods: &[(&str, u64, bool)]) {
        let pod = |(pod, in_flight, draining): &(&str, u64, bool)| PodDemand {
            pod: (*pod).to_owned(),
            in_flight: *in_flight,
            draining: *draining,
        };
        let revision = RevisionDemand {
            namespace: "ns".into(),
            function: "f".into(),
            revision: "f-00001".into(),
            in_flight: pods.iter().map(|(_, n, _)| n).sum(),
            arrivals,
            pods: pods.iter().map(pod).collect(),
            ..RevisionDemand::default()
        };
        let at_us = u64::try_from(self.scaler.now().as_micros()).unwrap();
        let process = source.address.to_string();
        self.scaler.apply_frame(
            source,
            Frame { version: VERSION, process, sequence: 0, at_us, more: false, revisions: vec![revision] },
        );
    }

    /// Applies a frame without revisions.
    fn heartbeat(&self) {
        let at_us = u64::try_from(self.scaler.now().as_micros()).unwrap();
        let frame = Frame { version: VERSION, process: "a".into(), sequence: 0, at_us, more: false, revisions: vec![] };
        self.scaler.apply_frame(&source(), frame);
    }

    async fn reconcile(&self) -> Option<Duration> {
        let requeue_at = Arc::clone(&self.scaler).reconcile(key()).await;
        requeue_at.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Removes and returns the recorded writes to matching paths.
    fn take_writes(&self, matches: impl Fn(&str) -> bool) -> Vec<(String, Value)> {
        self.writes.lock().extract_if(.., |(path, _)| matches(path)).collect()
    }

    /// Removes and returns the recorded replica counts.
    fn take_counts(&self) -> Vec<u64> {
        let scales = self.take_writes(|path| path.ends_with("/scale"));
        scales.into_iter().map(|(_, b)| b["spec"]["replicas"].as_u64().unwrap()).collect()
    }

    /// Removes and returns the recorded deletion costs.
    fn take_costs(&self) -> Vec<(String, Option<String>)> {
        let writes = self.take_writes(|path| path.contains("/pods/"));
        let cost = |b: &Value| b["metadata"]["annotations"][POD_DELETION_COST_ANNOTATION].as_str().map(str::to_owned);
        writes.into_iter().map(|(path, b)| (path.rsplit('/').next().unwrap().to_owned(), cost(&b))).collect()
    }

    /// Removes and returns the reasons and notes of the recorded Events.
    fn take_events(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        self.take_writes(|path| path.contains("/events"))
            .iter()
            .map(|(_, e)| (text(&e["reason"]), text(&e["note"])))
            .collect()
    }
}

async fn advance(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_pod_is_removed_exactly_after_the_idle_timeout() {
    let rig = Rig::new(&json!({"idleTimeout": "10s"}));
    rig.activator();
    rig.deployment("1", 1, 1);
    rig.frame(1, 1, 0);
    rig.reconcile().await;
    advance(20).await;
    rig.frame(1, 1, 20_000_000);
    rig.reconcile().await;
    assert!(rig.take_counts().is_empty(), "a long request keeps its pod");
    rig.frame(0, 1, 20_000_000);
    let mut waited = Duration::ZERO;
    loop {
        let wait = rig.reconcile().await;
        if let [count] = rig.take_counts()[..] {
            assert_eq!(count, 0);
            break;
        }
        let wait = wait.expect("requeued for the end of the idle timeout");
        assert!(wait > Duration::ZERO);
        waited += wait;
        tokio::time::advance(wait).await;
        rig.heartbeat();
    }
    assert!(waited >= Duration::from_secs(10) && waited <= Duration::from_millis(10_500), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn the_patch_is_conditional_on_the_version_of_the_decision() {
    let rig = Rig::new(&json!({"idleTimeout": "1s"}));
    rig.activator();
    rig.frame(0, 0, 0);
    rig.deployment("41", 1, 1);
    rig.reconcile().await;
    advance(2).await;
    rig.reconcile().await;
    let writes = rig.take_writes(|path| !path.contains("/events"));
    let [(path, body)] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!(path, "/apis/apps/v1/namespaces/ns/deployments/f-00001/scale");
    assert_eq!(*body, json!({"metadata": {"resourceVersion": "41", "uid": "deployment-uid"}, "spec": {"replicas": 0}}));
}

#[tokio::test(start_paused = true)]
async fn no_scale_down_without_a_frame_of_every_activator() {
    let rig = Rig::new(&json!({"idleTimeout": "1s"}));
    rig.deployment("1", 1, 1);
    rig.reconcile().await;
    advance(100).await;
    rig.reconcile().await;
    assert!(rig.take_counts().is_empty(), "no activator");
    rig.activator();
    rig.reconcile().await;
    assert!(rig.take_counts().is_empty(), "no frame yet");
    rig.frame(0, 0, 0);
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_scale_up_needs_no_frames() {
    let rig = Rig::new(&json!({"min": 3}));
    rig.deployment("1", 0, 0);
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_not_repeated_while_the_cache_lags() {
    let rig = Rig::new(&json!({"min": 3}));
    rig.deployment("1", 0, 0);
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [3]);
    let wait = rig.reconcile().await.unwrap();
    assert!(rig.take_counts().is_empty() && wait <= CACHE_TIMEOUT);
    rig.deployment("2", 3, 0);
    rig.reconcile().await;
    assert!(rig.take_counts().is_empty(), "the count is as decided");
    rig.deployment("3", 1, 0);
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [3], "another client changed it");
}

#[tokio::test(start_paused = true)]
async fn a_wake_is_kept_until_its_request_is_reported() {
    let rig = Rig::new(&json!({"idleTimeout": "10s"}));
    rig.activator();
    rig.frame(0, 0, 0);
    rig.deployment("1", 0, 0);
    rig.reconcile().await;
    advance(1000).await;
    rig.deployment("2", 1, 0);
    rig.reconcile().await;
    assert!(rig.take_counts().is_empty(), "an activator woke it; its frame is in transit");
    advance(11).await;
    rig.heartbeat();
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [0], "no request was reported");
}

#[tokio::test(start_paused = true)]
async fn an_activator_without_current_frames_keeps_the_last_pod() {
    let rig = Rig::new(&json!({"idleTimeout": "10s"}));
    rig.activator();
    rig.deployment("1", 1, 1);
    rig.frame(0, 1, 0);
    rig.reconcile().await;
    advance(60).await;
    rig.reconcile().await;
    assert!(rig.take_counts().is_empty(), "its last frame is a minute old");
    rig.heartbeat();
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [0], "a new frame reports no requests");
}

#[tokio::test(start_paused = true)]
async fn load_adds_pods() {
    let rig = Rig::new(&json!({"target": 1}));
    rig.activator();
    rig.deployment("1", 1, 1);
    rig.frame(0, 0, 0);
    rig.reconcile().await;
    rig.frame(10, 10, 0);
    rig.reconcile().await;
    advance(2).await;
    rig.frame(10, 10, 20_000_000);
    rig.reconcile().await;
    let counts = rig.take_counts();
    assert!(counts.last().is_some_and(|last| *last >= 5), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_starts_under_load_does_not_see_a_rise() {
    let rig = Rig::new(&json!({"target": 1}));
    rig.deployment("1", 3, 3);
    rig.reconcile().await;
    // The first frame reports three concurrent requests that have been running for an hour.
    tokio::time::advance(Duration::from_millis(5)).await;
    rig.activator();
    rig.frame(3, 10_000, 10_800_000_000);
    rig.reconcile().await;
    for second in 1..=90 {
        advance(1).await;
        rig.frame(3, 10_000 + second * 10, 10_800_000_000 + second * 3_000_000);
        rig.reconcile().await;
    }
    assert_eq!(rig.take_counts(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_retried() {
    let rig = Rig::new(&json!({"min": 2}));
    rig.deployment("1", 0, 0);
    *rig.status.lock() = 409;
    let wait = rig.reconcile().await.unwrap();
    assert!(wait <= Duration::from_secs(10) && rig.take_counts().is_empty());
    *rig.status.lock() = 200;
    advance(10).await;
    rig.reconcile().await;
    assert_eq!(rig.take_counts(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_former_victim_is_unmarked() {
    let rig = Rig::new(&json!({"min": 1}));
    rig.deployment("1", 1, 1);
    rig.pod("kept", "2026-01-01T00:00:00Z", Some("-1000"));
    rig.reconcile().await;
    assert_eq!(rig.take_costs(), [("kept".to_owned(), None)]);
    rig.reconcile().await;
    assert_eq!(rig.take_costs(), [], "the watch may lag");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_function_is_dropped() {
    let rig = Rig::new(&json!({}));
    rig.activator();
    rig.deployment("1", 1, 1);
    rig.frame(1, 1, 0);
    rig.reconcile().await;
    assert_eq!(rig.scaler.trackers.lock().len(), 1);
    rig.scaler.caches.functions.apply(Event::Init);
    rig.scaler.caches.functions.apply(Event::InitDone);
    assert_eq!(rig.reconcile().await, None);
    assert!(rig.scaler.trackers.lock().is_empty());
}

mod invalid_input;
mod overrides;
mod scale_down;
