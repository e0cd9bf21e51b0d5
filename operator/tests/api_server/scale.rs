//! The scaler's writes against a real API server. The test passes demand frames to the scaler directly: an EndpointSlice
//! must not contain a loopback address, so no activator can be discovered.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use rouse_crds::demand::{Frame, PodDemand, RevisionDemand, VERSION};
use rouse_operator::{
    cluster::{
        caches::{Caches, Listener, Scope},
        client::client_for,
        key::FunctionKey,
    },
    runtime::{progress::Beat, queue::WorkQueue, worker},
    scaler::{Scaler, aggregate::Source},
    telemetry::{events::Events, metrics::Metrics},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::rig::{Rig, config};

/// A scaler for a Function whose objects an operator created before it stopped.
pub(crate) struct ScalerRig {
    pub(crate) scaler: Arc<Scaler>,
    pub(crate) source: Source,
    started: Instant,
    stop: CancellationToken,
    worker: tokio::task::JoinHandle<()>,
    _follow: tokio::task::JoinSet<()>,
}

impl ScalerRig {
    /// Creates the Function `hello` with this spec and waits until its revision is ready. An operator creates the
    /// objects and stops; then the scaler starts.
    pub(crate) async fn new(rig: &Rig, spec: &Value) -> Self {
        let operator = rig.operator().await;
        rig.apply("hello", spec).await;
        rig.function("hello", "has a status", |f| f.status.is_some()).await;
        rig.pods_ready("hello-00001", 1).await;
        rig.function("hello", "has a ready revision", |f| crate::rig::condition(f, "RevisionReady").0 == "True").await;
        operator.stop().await;

        let metrics = Metrics::default();
        let client = client_for(config().await, &metrics).unwrap();
        let (caches, listener) = (Caches::default(), Arc::new(Queue::default()));
        let scope = Scope {
            namespace: rig.system.clone(),
            activator_service: "rouse-activator".into(),
            ingress: false,
            gateway: false,
        };
        let follow = caches.follow(&client, &scope, &listener);
        caches.synced().await;
        let events = Events::new(client.clone(), "test");
        let queue = Arc::clone(&listener.0);
        let scaler = Arc::new(Scaler::new(client, caches, events, metrics, Arc::clone(&queue)));
        let stop = CancellationToken::new();
        let worker = tokio::spawn({
            let (scaler, stop) = (Arc::clone(&scaler), stop.clone());
            async move { worker::run(&queue, 4, &stop, &Beat::default(), |key| Arc::clone(&scaler).reconcile(key)).await }
        });
        let source = Source { address: ([127, 0, 0, 1], 1).into(), pod: None };
        scaler.set_sources(&HashMap::from([(source.clone(), true)]));
        Self { scaler, source, started: Instant::now(), stop, worker, _follow: follow }
    }

    /// Applies a frame of an activator with its requests in each pod, and whether it has stopped sending to the pod.
    pub(crate) fn send_frame(&self, rig: &Rig, arrivals: u64, pods: &[(String, u64, bool)]) {
        let pod = |(pod, in_flight, draining): &(String, u64, bool)| PodDemand {
            pod: pod.clone(),
            in_flight: *in_flight,
            draining: *draining,
        };
        let revision = RevisionDemand {
            namespace: rig.namespace.clone(),
            function: "hello".into(),
            revision: "hello-00001".into(),
            in_flight: pods.iter().map(|(_, n, _)| n).sum(),
            arrivals,
            pods: pods.iter().map(pod).collect(),
            ..RevisionDemand::default()
        };
        let at_us = u64::try_from(self.started.elapsed().as_micros()).unwrap();
        let revisions = vec![revision];
        let frame = Frame { version: VERSION, process: "activator".into(), sequence: 0, at_us, more: false, revisions };
        self.scaler.apply_frame(&self.source, frame);
    }

    /// Applies a frame with these requests in one pod.
    fn send_requests(&self, rig: &Rig, in_flight: u64, arrivals: u64) {
        self.send_frame(rig, arrivals, &[("p".into(), in_flight, false)]);
    }

    pub(crate) async fn end(self, rig: Rig) {
        self.stop.cancel();
        self.worker.await.unwrap();
        rig.end(None).await;
    }
}

#[derive(Default)]
struct Queue(Arc<WorkQueue<FunctionKey>>);

impl Listener for Queue {
    fn touched(&self, function: &FunctionKey) {
        self.0.add(function.clone());
    }
    fn function_changed(&self) {}
    fn activators_changed(&self) {}
    fn ingress_changed(&self) {}
}

#[tokio::test]
async fn scales_to_zero_and_up_and_corrects_external_changes() {
    let rig = Rig::new("scale").await;
    let spec = json!({"image": "i", "scaling": {"idleTimeout": "1s", "target": 1, "panicWindow": "1s"}});
    let scaler = ScalerRig::new(&rig, &spec).await;
    let replicas = |d: &Deployment| d.spec.as_ref().unwrap().replicas.unwrap();

    scaler.send_requests(&rig, 0, 0);
    let idle: Deployment = rig.object("hello-00001", "is at zero", |d| replicas(d) == 0).await;
    assert!(idle.metadata.uid.is_some());
    rig.pods_ready("hello-00001", 0).await;

    // An activator's wake, with the patch that is valid at zero only.
    let wake =
        json!([{"op": "test", "path": "/spec", "value": {}}, {"op": "add", "path": "/spec/replicas", "value": 1}]);
    let wake = Patch::<()>::Json(serde_json::from_value(wake).unwrap());
    let deployments: Api<Deployment> = rig.deployments();
    deployments.patch_scale("hello-00001", &PatchParams::default(), &wake).await.unwrap();
    scaler.send_requests(&rig, 1, 1);
    rig.pods_ready("hello-00001", 1).await;
    // Twice the idle timeout: the absence of a change can only be observed over time.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert_eq!(replicas(&deployments.get("hello-00001").await.unwrap()), 1, "a running request keeps its pod");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scaler.send_requests(&rig, 8, 8);
    rig.object("hello-00001", "has grown", |d| replicas(d) >= 4).await;
    scaler.send_requests(&rig, 0, 8);
    rig.object("hello-00001", "is at zero again", |d| replicas(d) == 0).await;

    // Another client sets the count.
    let external = json!({"spec": {"replicas": 3}});
    deployments.patch_scale("hello-00001", &PatchParams::default(), &Patch::Merge(external)).await.unwrap();
    rig.object("hello-00001", "is at zero again", |d| replicas(d) == 0).await;
    scaler.end(rig).await;
}
