use super::*;

use http::{Request, Response};
use kube::{client::Body, core::DeserializeGuard, runtime::watcher::Event};
use rouse_crds::{
    demand::{PodDemand, RevisionDemand, VERSION},
    names::{FUNCTION_LABEL, FUNCTION_UID_LABEL, POD_DELETION_COST_ANNOTATION, REVISION_LABEL},
};
use serde_json::{Value, json};

/// A scaler over caches that the test fills, and an API server that notes what is written and answers as it is told.
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

    /// A Function with this spec, and with these habits in its status.
    fn of(spec: &Value, habits: Option<&str>) -> Self {
        let (writes, status) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(200)));
        let (noted, answer) = (Arc::clone(&writes), Arc::clone(&status));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (noted, answer) = (Arc::clone(&noted), *answer.lock());
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect_bytes().await?;
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                if path.contains("/events") {
                    noted.lock().push((path, body.clone()));
                    return Ok::<_, kube::Error>(Response::new(Body::from(body.to_string().into_bytes())));
                }
                let reply = if answer == 200 {
                    let reply = if path.contains("/functions/") {
                        json!({"apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "metadata": {"name": "f"}, "spec": {"image": "i"}})
                    } else {
                        json!({"metadata": {}, "spec": {}, "status": {"replicas": 0}})
                    };
                    noted.lock().push((path, body));
                    reply
                } else {
                    json!({"kind": "Status", "status": "Failure", "code": answer, "reason": "Conflict", "message": "m"})
                };
                let reply = Body::from(reply.to_string().into_bytes());
                Ok(Response::builder().status(answer).body(reply).unwrap())
            }
        });
        let client = Client::new(service, "default");
        let caches = Caches::default();
        let events = Events::new(client.clone(), "test");
        let scaler = Scaler::new(client, caches, events, Metrics::default(), Arc::default());
        let rig = Self { scaler: Arc::new(scaler), writes, status };
        rig.function(spec, habits);
        rig
    }

    /// What the watch brings of the Function.
    fn function(&self, spec: &Value, habits: Option<&str>) {
        let function = json!({
            "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
            "metadata": {"namespace": "ns", "name": "f", "uid": UID},
            "spec": spec,
            "status": {
                "latestRevision": "f-00001",
                "traffic": [{"revision": "f-00001", "percent": 100, "latest": true}],
                "conditions": [{"type": "RevisionReady", "status": "True", "reason": "Proven", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
                "habits": habits,
            },
        });
        let function = Event::Apply(DeserializeGuard(Ok(serde_json::from_value(function).unwrap())));
        self.scaler.caches.functions.apply(function);
    }

    /// What the watch brings of the Deployment.
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
                "labels": {FUNCTION_LABEL: "f", REVISION_LABEL: "f-00001", FUNCTION_UID_LABEL: UID},
                "annotations": cost.map(|c| json!({"controller.kubernetes.io/pod-deletion-cost": c})),
            },
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        self.scaler.caches.pods.apply(Event::Apply(serde_json::from_value(pod).unwrap()));
    }

    fn activator(&self) {
        self.scaler.set_sources(&HashMap::from([(source(), true)]));
    }

    /// A frame with these requests in flight.
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
        let frame = Frame { version: VERSION, process: "a".into(), sequence: 0, at_us, revisions: vec![revision] };
        self.scaler.frame(&source(), frame);
    }

    /// A frame of an activator that says in which of its pods its requests are, and whether it sends there still.
    fn says(&self, source: &Source, arrivals: u64, pods: &[(&str, u64, bool)]) {
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
        self.scaler.frame(source, Frame { version: VERSION, process, sequence: 0, at_us, revisions: vec![revision] });
    }

    /// A frame that says nothing but that the activator is there.
    fn heartbeat(&self) {
        let at_us = u64::try_from(self.scaler.now().as_micros()).unwrap();
        let frame = Frame { version: VERSION, process: "a".into(), sequence: 0, at_us, revisions: vec![] };
        self.scaler.frame(&source(), frame);
    }

    async fn look(&self) -> Option<Duration> {
        let again = Arc::clone(&self.scaler).look(key()).await;
        again.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// What was written since the last time to paths that end like this.
    fn taken(&self, like: impl Fn(&str) -> bool) -> Vec<(String, Value)> {
        self.writes.lock().extract_if(.., |(path, _)| like(path)).collect()
    }

    /// Counts that were written since the last time.
    fn counts(&self) -> Vec<u64> {
        let scales = self.taken(|path| path.ends_with("/scale"));
        scales.into_iter().map(|(_, b)| b["spec"]["replicas"].as_u64().unwrap()).collect()
    }

    /// Deletion costs that were written since the last time.
    fn marks(&self) -> Vec<(String, Option<String>)> {
        let marks = self.taken(|path| path.contains("/pods/"));
        let cost = |b: &Value| b["metadata"]["annotations"][POD_DELETION_COST_ANNOTATION].as_str().map(str::to_owned);
        marks.into_iter().map(|(path, b)| (path.rsplit('/').next().unwrap().to_owned(), cost(&b))).collect()
    }

    /// Reasons and notes of the events since the last time.
    fn told(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        self.taken(|path| path.contains("/events"))
            .iter()
            .map(|(_, e)| (text(&e["reason"]), text(&e["note"])))
            .collect()
    }
}

async fn advance(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_pod_goes_exactly_after_the_idle_time_out() {
    let rig = Rig::new(&json!({"idleTimeout": "10s"}));
    rig.activator();
    rig.deployment("1", 1, 1);
    rig.frame(1, 1, 0);
    rig.look().await;
    advance(20).await;
    rig.frame(1, 1, 20_000_000);
    rig.look().await;
    assert!(rig.counts().is_empty(), "a long request keeps its pod");
    rig.frame(0, 1, 20_000_000);
    let mut waited = Duration::ZERO;
    loop {
        let wait = rig.look().await;
        if let [count] = rig.counts()[..] {
            assert_eq!(count, 0);
            break;
        }
        let wait = wait.expect("a time is set for the end of the idle time-out");
        assert!(wait > Duration::ZERO);
        waited += wait;
        tokio::time::advance(wait).await;
        rig.heartbeat();
    }
    assert!(waited >= Duration::from_secs(10) && waited <= Duration::from_millis(10_500), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn the_patch_is_conditional_on_what_it_was_decided_from() {
    let rig = Rig::new(&json!({"idleTimeout": "1s"}));
    rig.activator();
    rig.frame(0, 0, 0);
    rig.deployment("41", 1, 1);
    rig.look().await;
    advance(2).await;
    rig.look().await;
    let writes = rig.taken(|path| !path.contains("/events"));
    let [(path, body)] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!(path, "/apis/apps/v1/namespaces/ns/deployments/f-00001/scale");
    assert_eq!(*body, json!({"metadata": {"resourceVersion": "41", "uid": "deployment-uid"}, "spec": {"replicas": 0}}));
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_down_without_word_from_every_activator() {
    let rig = Rig::new(&json!({"idleTimeout": "1s"}));
    rig.deployment("1", 1, 1);
    rig.look().await;
    advance(100).await;
    rig.look().await;
    assert!(rig.counts().is_empty(), "there is no activator");
    rig.activator();
    rig.look().await;
    assert!(rig.counts().is_empty(), "it has not been heard");
    rig.frame(0, 0, 0);
    rig.look().await;
    assert_eq!(rig.counts(), [0]);
}

#[tokio::test(start_paused = true)]
async fn going_up_needs_no_word_from_others() {
    let rig = Rig::new(&json!({"min": 3}));
    rig.deployment("1", 0, 0);
    rig.look().await;
    assert_eq!(rig.counts(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_not_repeated_while_the_cache_is_late() {
    let rig = Rig::new(&json!({"min": 3}));
    rig.deployment("1", 0, 0);
    rig.look().await;
    assert_eq!(rig.counts(), [3]);
    let wait = rig.look().await.unwrap();
    assert!(rig.counts().is_empty() && wait <= CATCH_UP);
    rig.deployment("2", 3, 0);
    rig.look().await;
    assert!(rig.counts().is_empty(), "it is as it should be");
    rig.deployment("3", 1, 0);
    rig.look().await;
    assert_eq!(rig.counts(), [3], "somebody has changed it");
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_is_not_explained_yet_is_left_alone() {
    let rig = Rig::new(&json!({"idleTimeout": "10s"}));
    rig.activator();
    rig.frame(0, 0, 0);
    rig.deployment("1", 0, 0);
    rig.look().await;
    advance(1000).await;
    rig.deployment("2", 1, 0);
    rig.look().await;
    assert!(rig.counts().is_empty(), "an activator has woken it; its frame is on the way");
    advance(11).await;
    rig.heartbeat();
    rig.look().await;
    assert_eq!(rig.counts(), [0], "nobody called after all");
}

#[tokio::test(start_paused = true)]
async fn an_activator_that_fell_silent_keeps_the_last_pod() {
    let rig = Rig::new(&json!({"idleTimeout": "10s"}));
    rig.activator();
    rig.deployment("1", 1, 1);
    rig.frame(0, 1, 0);
    rig.look().await;
    advance(60).await;
    rig.look().await;
    assert!(rig.counts().is_empty(), "what it said a minute ago is not what is now");
    rig.heartbeat();
    rig.look().await;
    assert_eq!(rig.counts(), [0], "it is heard again, and there was nothing");
}

#[tokio::test(start_paused = true)]
async fn load_adds_pods() {
    let rig = Rig::new(&json!({"target": 1}));
    rig.activator();
    rig.deployment("1", 1, 1);
    rig.frame(0, 0, 0);
    rig.look().await;
    rig.frame(10, 10, 0);
    rig.look().await;
    advance(2).await;
    rig.frame(10, 10, 20_000_000);
    rig.look().await;
    let counts = rig.counts();
    assert!(counts.last().is_some_and(|last| *last >= 5), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_begins_under_load_takes_nothing_for_a_rise() {
    let rig = Rig::new(&json!({"target": 1}));
    rig.deployment("1", 3, 3);
    rig.look().await;
    // A moment later it hears of three at once, who have been there for an hour.
    tokio::time::advance(Duration::from_millis(5)).await;
    rig.activator();
    rig.frame(3, 10_000, 10_800_000_000);
    rig.look().await;
    for second in 1..=90 {
        advance(1).await;
        rig.frame(3, 10_000 + second * 10, 10_800_000_000 + second * 3_000_000);
        rig.look().await;
    }
    assert_eq!(rig.counts(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_tried_again() {
    let rig = Rig::new(&json!({"min": 2}));
    rig.deployment("1", 0, 0);
    *rig.status.lock() = 409;
    let wait = rig.look().await.unwrap();
    assert!(wait <= Duration::from_secs(10) && rig.counts().is_empty());
    *rig.status.lock() = 200;
    advance(10).await;
    rig.look().await;
    assert_eq!(rig.counts(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_stays_after_all_loses_its_mark() {
    let rig = Rig::new(&json!({"min": 1}));
    rig.deployment("1", 1, 1);
    rig.pod("kept", "2026-01-01T00:00:00Z", Some("-1000"));
    rig.look().await;
    assert_eq!(rig.marks(), [("kept".to_owned(), None)]);
    rig.look().await;
    assert_eq!(rig.marks(), [], "the watch may only be late");
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_forgotten() {
    let rig = Rig::new(&json!({}));
    rig.activator();
    rig.deployment("1", 1, 1);
    rig.frame(1, 1, 0);
    rig.look().await;
    assert_eq!(rig.scaler.memory.lock().len(), 1);
    rig.scaler.caches.functions.apply(Event::Init);
    rig.scaler.caches.functions.apply(Event::InitDone);
    assert_eq!(rig.look().await, None);
    assert!(rig.scaler.memory.lock().is_empty());
}

mod drains;
mod humans;
mod input;
