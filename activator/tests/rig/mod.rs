//! A whole activator on loopback addresses: real sockets on both sides, and in place of a cluster a test that applies
//! Functions and pods. Nothing here uses Kubernetes.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]
#![allow(clippy::needless_pass_by_value, reason = "a test hands over a `json!` where it stands")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod client;
pub(crate) mod frames;
mod pod;
mod tls;

pub(crate) use client::{Answer, Client, get, narrow, raw, raw_answer, read_head, read_until};
pub(crate) use frames::Frames;
pub(crate) use pod::{FakePod, Handler, PodBody, by_hand, ok, raw_pod};
pub(crate) use tls::{Authority, swap};

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use clap::Parser;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rouse_activator::{
    args::Args,
    route::{Directory, Synced},
    run::Activator,
    wake::{Scaler, WakeError},
};
use rouse_crds::{Function, hosts::EVERYONE, pod::FunctionPod};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a loaded machine; reaching it fails the test.
pub(crate) const GENEROUS: Duration = Duration::from_secs(20);

/// A whole activator.
pub(crate) struct Rig {
    /// Addresses of the public, cluster and admin listeners.
    pub(crate) public: SocketAddr,
    pub(crate) cluster: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Address of the TLS listener, if a flag enables it.
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) directory: Mutex<Directory>,
    pub(crate) wakes: tokio::sync::Mutex<mpsc::UnboundedReceiver<Wake>>,
    pub(crate) scaler: Arc<FakeScaler>,
    stop: CancellationToken,
    pub(crate) ended: Option<JoinHandle<anyhow::Result<()>>>,
    serial: AtomicUsize,
}

/// A requested wake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wake {
    pub(crate) namespace: String,
    pub(crate) revision: String,
    pub(crate) replicas: u32,
}

/// Records wakes, and returns what it is given; by default every wake succeeds.
#[derive(Debug)]
pub(crate) struct FakeScaler {
    asked: mpsc::UnboundedSender<Wake>,
    pub(crate) count: AtomicUsize,
    answers: Mutex<Vec<Result<(), WakeError>>>,
    /// Number of next wakes that panic.
    pub(crate) defects: AtomicUsize,
}

impl FakeScaler {
    /// Sets the results of the next wakes, the last one first.
    pub(crate) fn answer(&self, answers: impl Into<Vec<Result<(), WakeError>>>) {
        *self.answers.lock() = answers.into();
    }
}

impl Scaler for FakeScaler {
    fn wake<'a>(
        &'a self,
        namespace: &'a str,
        revision: &'a str,
        replicas: u32,
    ) -> BoxFuture<'a, Result<(), WakeError>> {
        let defect = self.defects.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        assert!(defect.is_err(), "a defect");
        self.count.fetch_add(1, Ordering::SeqCst);
        self.asked.send(Wake { namespace: namespace.into(), revision: revision.into(), replicas }).ok();
        let answer = self.answers.lock().pop().unwrap_or(Ok(()));
        Box::pin(async move { answer })
    }
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With more flags.
    pub(crate) async fn with(flags: &[&str]) -> Self {
        let base = [
            "rouse-activator",
            "--allow-local-pods",
            "--public-addr=127.0.0.1:0",
            "--cluster-addr=127.0.0.1:0",
            "--admin-addr=127.0.0.1:0",
            "--shutdown-delay=100ms",
            "--shutdown-grace=20s",
        ];
        let everyone = format!("--allowed-hosts={EVERYONE}");
        let mut args: Vec<&str> = base
            .into_iter()
            .chain([everyone.as_str()])
            .filter(|b| !flags.iter().any(|f| f.split('=').next() == b.split('=').next()))
            .collect();
        args.extend(flags);
        let args = Args::try_parse_from(args).unwrap();
        let (asked, wakes) = mpsc::unbounded_channel();
        let scaler = Arc::new(FakeScaler {
            asked,
            count: AtomicUsize::new(0),
            answers: Mutex::default(),
            defects: AtomicUsize::new(0),
        });
        let activator = Activator::bind(args, scaler.clone()).await.unwrap();
        let [public, cluster, admin] = activator.addresses().unwrap();
        let tls = activator.tls_address().unwrap();
        let directory = Mutex::new(activator.directory());
        let stop = CancellationToken::new();
        let (synced, is_synced) = watch::channel(Synced { functions: true, pods: true });
        let ended = tokio::spawn({
            let stop = stop.clone();
            async move {
                let ended = activator.serve(is_synced, stop.cancelled_owned()).await;
                drop(synced);
                ended
            }
        });
        Self {
            public,
            cluster,
            admin,
            tls,
            directory,
            wakes: wakes.into(),
            scaler,
            stop,
            ended: Some(ended),
            serial: AtomicUsize::new(0),
        }
    }

    /// Applies `default/{name}` with traffic to `{name}-00001`.
    pub(crate) fn function(&self, name: &str, spec: Value) {
        self.apply(function(name, "uid-1", spec, &[(&format!("{name}-00001"), 100)]));
    }

    pub(crate) fn apply(&self, function: Value) {
        let function: Function = serde_json::from_value(function).unwrap();
        self.directory.lock().function_updated(&function);
    }

    pub(crate) fn delete(&self, name: &str) {
        self.directory.lock().function_deleted("default", name);
    }

    /// Applies a pod of `{name}-00001` with the given status; returns its name.
    pub(crate) fn show(&self, name: &str, status: Value) -> String {
        let pod = format!("{name}-00001-{}", self.serial.fetch_add(1, Ordering::SeqCst));
        self.show_as(&pod, name, status, 0);
        pod
    }

    pub(crate) fn show_as(&self, pod: &str, name: &str, status: Value, port: u16) {
        self.show_pod(pod_object(pod, name, "uid-1", &format!("{name}-00001"), status, port));
    }

    pub(crate) fn show_pod(&self, pod: Value) {
        let pod: FunctionPod = serde_json::from_value(pod).unwrap();
        self.directory.lock().pod_updated(&pod);
    }

    pub(crate) fn pod_deleted(&self, pod: Value) {
        let pod: FunctionPod = serde_json::from_value(pod).unwrap();
        self.directory.lock().pod_deleted(&pod.metadata);
    }

    /// Applies a pod with an address; the probe makes it ready. Returns its name.
    pub(crate) fn start_pod(&self, name: &str, pod: &FakePod) -> String {
        let pod_name = format!("{name}-00001-{}", self.serial.fetch_add(1, Ordering::SeqCst));
        self.show_as(&pod_name, name, running(), pod.address.port());
        pod_name
    }

    /// Waits for the next wake.
    pub(crate) async fn wake(&self) -> Wake {
        let mut wakes = self.wakes.lock().await;
        timeout(GENEROUS, wakes.recv()).await.expect("no wake was asked for").unwrap()
    }

    /// Waits until the metrics report this many queued requests of a function.
    pub(crate) async fn queued(&self, name: &str, count: u64) {
        self.metric(&format!(r#"rouse_activator_queued{{namespace="default",function="{name}""#), count).await;
    }

    pub(crate) async fn in_flight(&self, name: &str, count: u64) {
        self.metric(&format!(r#"rouse_activator_in_flight{{namespace="default",function="{name}""#), count).await;
    }

    /// Waits until the metrics whose line begins like this add up to `count`.
    pub(crate) async fn metric(&self, prefix: &str, count: u64) {
        let mut seen = 0;
        let reached = timeout(GENEROUS, async {
            loop {
                let text = get(self.admin, "admin", "/metrics").await.text();
                seen = text
                    .lines()
                    .filter(|l| l.starts_with(prefix))
                    .filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
                    .sum();
                if seen == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        assert!(reached.await.is_ok(), "{prefix} is {seen} and not {count}");
    }

    /// Starts the shutdown.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}

/// Status of a scheduled pod with an address and a running container.
pub(crate) fn running() -> Value {
    json!({"phase": "Running", "podIP": "127.0.0.1", "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
}

/// Status of a pod whose image cannot be pulled.
pub(crate) fn no_image() -> Value {
    json!({"phase": "Pending", "containerStatuses": [{"name": "function", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]})
}

pub(crate) fn function(name: &str, uid: &str, spec: Value, traffic: &[(&str, u32)]) -> Value {
    let mut whole = json!({"image": "example.com/x:1"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let traffic: Vec<_> =
        traffic.iter().map(|(revision, percent)| json!({"revision": revision, "percent": percent})).collect();
    json!({
        "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
        "metadata": {"name": name, "namespace": "default", "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": whole, "status": {"traffic": traffic},
    })
}

pub(crate) fn pod_object(pod: &str, function: &str, uid: &str, revision: &str, status: Value, port: u16) -> Value {
    json!({
        "metadata": {
            "name": pod, "namespace": "default", "uid": format!("uid-of-{pod}"),
            "labels": {
                "rouse.dev/function": function, "rouse.dev/revision": revision, "rouse.dev/function-uid": uid,
                "pod-template-hash": "5d9f",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{revision}-5d9f"), "uid": "u", "controller": true,
            }],
        },
        "spec": {"containers": [{"name": "function", "ports": [{"name": "function", "containerPort": port}]}]},
        "status": status,
    })
}

/// An activator whose function `hello` has this pod.
pub(crate) async fn warm(pod: &FakePod, spec: Value) -> Rig {
    let rig = Rig::start().await;
    rig.function("hello", spec);
    rig.start_pod("hello", pod);
    rig
}
