//! The scaler's writes against a real API server. Activators cannot be here: an EndpointSlice may not name a loopback
//! address, so what they would say is handed to the scaler directly.

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

/// A scaler that works on what a whole operator has made and left.
pub(crate) struct Stage {
    pub(crate) scaler: Arc<Scaler>,
    pub(crate) source: Source,
    began: Instant,
    stop: CancellationToken,
    work: tokio::task::JoinHandle<()>,
    _follow: tokio::task::JoinSet<()>,
}

impl Stage {
    /// The Function `hello` with this spec, proven by one ready pod. The reconciler of a whole operator makes the objects, and
    /// then leaves the counts to the scaler of this stage.
    pub(crate) async fn new(rig: &Rig, spec: &Value) -> Self {
        let operator = rig.operator().await;
        rig.apply("hello", spec).await;
        rig.function("hello", "has a status", |f| f.status.is_some()).await;
        rig.pods_ready("hello-00001", 1).await;
        rig.function("hello", "is proven", |f| crate::rig::condition(f, "RevisionReady").0 == "True").await;
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
        let work = tokio::spawn({
            let (scaler, stop) = (Arc::clone(&scaler), stop.clone());
            async move { worker::run(&queue, 4, &stop, &Beat::default(), |key| Arc::clone(&scaler).look(key)).await }
        });
        let source = Source { address: ([127, 0, 0, 1], 1).into(), pod: None };
        scaler.set_sources(&HashMap::from([(source.clone(), true)]));
        Self { scaler, source, began: Instant::now(), stop, work, _follow: follow }
    }

    /// What an activator that began with this stage says now: its requests by pod, and whether it sends there still.
    pub(crate) fn says(&self, rig: &Rig, arrivals: u64, pods: &[(String, u64, bool)]) {
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
        let at_us = u64::try_from(self.began.elapsed().as_micros()).unwrap();
        let revisions = vec![revision];
        let frame = Frame { version: VERSION, process: "activator".into(), sequence: 0, at_us, revisions };
        self.scaler.frame(&self.source, frame);
    }

    /// The same, with requests that are in one pod.
    fn busy(&self, rig: &Rig, in_flight: u64, arrivals: u64) {
        self.says(rig, arrivals, &[("somewhere".into(), in_flight, false)]);
    }

    pub(crate) async fn end(self, rig: Rig) {
        self.stop.cancel();
        self.work.await.unwrap();
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
async fn to_zero_and_up_and_against_the_will_of_others() {
    let rig = Rig::new("scale").await;
    let spec = json!({"image": "i", "scaling": {"idleTimeout": "1s", "target": 1, "panicWindow": "1s"}});
    let stage = Stage::new(&rig, &spec).await;
    let replicas = |d: &Deployment| d.spec.as_ref().unwrap().replicas.unwrap();

    stage.busy(&rig, 0, 0);
    let idle: Deployment = rig.object("hello-00001", "is at zero", |d| replicas(d) == 0).await;
    assert!(idle.metadata.uid.is_some());
    rig.pods_ready("hello-00001", 0).await;

    // An activator's wake, with the patch that is valid at zero only.
    let wake =
        json!([{"op": "test", "path": "/spec", "value": {}}, {"op": "add", "path": "/spec/replicas", "value": 1}]);
    let wake = Patch::<()>::Json(serde_json::from_value(wake).unwrap());
    let deployments: Api<Deployment> = rig.deployments();
    deployments.patch_scale("hello-00001", &PatchParams::default(), &wake).await.unwrap();
    stage.busy(&rig, 1, 1);
    rig.pods_ready("hello-00001", 1).await;
    // Twice the idle time-out; nothing happens, so there is nothing to wait for but time.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert_eq!(replicas(&deployments.get("hello-00001").await.unwrap()), 1, "a request that runs keeps its pod");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stage.busy(&rig, 8, 8);
    rig.object("hello-00001", "has grown", |d| replicas(d) >= 4).await;
    stage.busy(&rig, 0, 8);
    rig.object("hello-00001", "is at zero again", |d| replicas(d) == 0).await;

    // A human thinks otherwise.
    let human = json!({"spec": {"replicas": 3}});
    deployments.patch_scale("hello-00001", &PatchParams::default(), &Patch::Merge(human)).await.unwrap();
    rig.object("hello-00001", "is at zero again", |d| replicas(d) == 0).await;
    stage.end(rig).await;
}
