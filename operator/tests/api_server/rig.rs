//! Test rig: a client, namespaces, an operator that can be started and stopped, and waits for conditions.

use std::{fmt::Debug, time::Duration};

use clap::Parser as _;
use k8s_openapi::{
    api::{
        apps::v1::{ControllerRevision, Deployment},
        core::v1::{Namespace, Service},
        networking::v1::Ingress,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::NamespaceResourceScope,
    runtime::{conditions, wait::await_condition},
};
use rand::Rng as _;
use rouse_crds::Function;
use rouse_operator::{args::Args, cluster::client::client_for, operator, telemetry::metrics::Metrics};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Timeout of every wait.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

pub(crate) struct Rig {
    pub(crate) client: Client,
    /// Namespace of the Functions.
    pub(crate) namespace: String,
    /// Namespace of the release.
    pub(crate) system: String,
    _turn: MutexGuard<'static, ()>,
}

/// An operator in this process.
pub(crate) struct Running {
    pub(crate) metrics: Metrics,
    stop: CancellationToken,
    pub(crate) task: JoinHandle<anyhow::Result<()>>,
}

pub(crate) async fn config() -> Config {
    // The first test sets both. `RUST_LOG` enables the log of the operator.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
    drop(rustls::crypto::ring::default_provider().install_default());
    let path = std::env::var("ROUSE_TEST_KUBECONFIG")
        .expect("ROUSE_TEST_KUBECONFIG is not set: these tests need an API server; run `cargo e2e test --tier 2`");
    let kubeconfig =
        Kubeconfig::read_from(&path).unwrap_or_else(|e| panic!("cannot read ROUSE_TEST_KUBECONFIG={path}: {e}"));
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

impl Rig {
    pub(crate) async fn new(name: &str) -> Self {
        let turn = ONE_AT_A_TIME.lock().await;
        let client = Client::try_from(config().await).unwrap();
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        let crd = rouse_crds::function::crd();
        let params = PatchParams::apply("rouse-test").force();
        crds.patch("functions.rouse.dev", &params, &Patch::Apply(&crd)).await.unwrap();
        let established = await_condition(crds, "functions.rouse.dev", conditions::is_crd_established());
        timeout(LIMIT, established).await.expect("the CRD is not established").unwrap();
        // The operator would see objects that a failed test left behind.
        let everywhere: Api<Function> = Api::all(client.clone());
        for left in everywhere.list(&ListParams::default()).await.unwrap() {
            let namespace = left.metadata.namespace.unwrap();
            let there: Api<Function> = Api::namespaced(client.clone(), &namespace);
            there.delete(&left.metadata.name.unwrap(), &DeleteParams::default()).await.unwrap();
        }
        let unique = format!("{name}-{:06x}", rand::rng().random_range(0..0x0100_0000));
        let rig = Self { client, system: format!("{unique}-sys"), namespace: unique, _turn: turn };
        let namespaces: Api<Namespace> = Api::all(rig.client.clone());
        for name in [&rig.namespace, &rig.system] {
            let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        }
        rig
    }

    pub(crate) fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn functions(&self) -> Api<Function> {
        self.api()
    }

    pub(crate) fn deployments(&self) -> Api<Deployment> {
        self.api()
    }

    pub(crate) fn ingresses(&self) -> Api<Ingress> {
        Api::namespaced(self.client.clone(), &self.system)
    }

    /// Name of the Ingress of the Functions' namespace.
    pub(crate) fn ingress(&self) -> String {
        rouse_operator::ingress::http1_name(&self.namespace)
    }

    pub(crate) fn args(&self, pod: &str) -> Args {
        let flags = ["rouse-operator", "--namespace", &self.system, "--pod-name", pod, "--admin-addr", "127.0.0.1:0"];
        Args::try_parse_from(flags.iter().chain(&[
            "--domain",
            "fn.test",
            "--allowed-hosts",
            rouse_crds::hosts::EVERYONE,
        ]))
        .unwrap()
    }

    /// Starts an operator.
    pub(crate) async fn operator(&self) -> Running {
        let metrics = Metrics::default();
        let client = client_for(config().await, &metrics).unwrap();
        self.operator_with("operator", client, metrics)
    }

    /// Starts an operator with flags modified by `change`.
    pub(crate) async fn operator_that(&self, change: impl FnOnce(&mut Args)) -> Running {
        let metrics = Metrics::default();
        let client = client_for(config().await, &metrics).unwrap();
        let mut args = self.args("operator");
        change(&mut args);
        let stop = CancellationToken::new();
        let task = tokio::spawn(operator::run(args, client, metrics.clone(), stop.clone()));
        Running { metrics, stop, task }
    }

    pub(crate) fn operator_with(&self, pod: &str, client: Client, metrics: Metrics) -> Running {
        self.operator_of(self.args(pod), client, metrics)
    }

    #[allow(clippy::unused_self, reason = "an operator without a rig would see the Functions of another test")]
    pub(crate) fn operator_of(&self, args: Args, client: Client, metrics: Metrics) -> Running {
        let stop = CancellationToken::new();
        let task = tokio::spawn(operator::run(args, client, metrics.clone(), stop.clone()));
        Running { metrics, stop, task }
    }

    /// Applies a Function, as `kubectl apply`.
    pub(crate) async fn apply(&self, name: &str, spec: &Value) -> Function {
        self.try_apply(name, spec).await.unwrap()
    }

    pub(crate) async fn try_apply(&self, name: &str, spec: &Value) -> kube::Result<Function> {
        let function =
            json!({"apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "metadata": {"name": name}, "spec": spec});
        let mut params = PatchParams::apply("user").force();
        params.field_validation = Some(kube::api::ValidationDirective::Strict);
        self.functions().patch(name, &params, &Patch::Apply(function)).await
    }

    /// Waits until `is` returns true for the Function.
    pub(crate) async fn function(&self, name: &str, what: &str, is: impl Fn(&Function) -> bool) -> Function {
        self.object(name, what, is).await
    }

    /// Waits until an object exists and `is` returns true for it.
    pub(crate) async fn object<K>(&self, name: &str, what: &str, is: impl Fn(&K) -> bool) -> K
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        wait_for(&self.api(), name, what, is).await
    }

    /// Sets the number of ready pods, as the Deployment controller and the kubelet.
    pub(crate) async fn pods_ready(&self, deployment: &str, ready: i32) {
        let status = json!({"status": {"replicas": ready, "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": ready}});
        self.deployments().patch_status(deployment, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    /// Returns all objects of the operator as JSON, without the fields that differ between runs.
    pub(crate) async fn state(&self) -> Value {
        json!({
            "functions": dump(&self.functions()).await,
            "revisions": dump(&self.api::<ControllerRevision>()).await,
            "deployments": dump(&self.deployments()).await,
            "services": dump(&self.api::<Service>()).await,
            "ingresses": dump(&self.ingresses()).await,
        })
    }

    /// Returns the versions of all objects of the operator.
    pub(crate) async fn versions(&self) -> Vec<String> {
        let mut all = Vec::new();
        versions(&self.functions(), &mut all).await;
        versions(&self.api::<ControllerRevision>(), &mut all).await;
        versions(&self.deployments(), &mut all).await;
        versions(&self.api::<Service>(), &mut all).await;
        versions(&self.ingresses(), &mut all).await;
        all
    }

    /// Deletes the Functions, so that the operator of the next test does not see them.
    pub(crate) async fn end(self, operator: Option<Running>) {
        if let Some(operator) = operator {
            operator.stop().await;
        }
        self.functions().delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    }
}

impl Running {
    /// Stops the operator, as SIGTERM.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        timeout(LIMIT, self.task).await.expect("it does not end").unwrap().expect("it ends well");
    }

    /// Kills the operator, as SIGKILL.
    pub(crate) async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.is_err_and(|e| e.is_cancelled()));
    }

    /// Returns the value of a metric; 0 if it does not exist.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let text = self.metrics.text().unwrap();
        let value = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
        value.unwrap_or(0.0)
    }

    /// Returns the write requests, except those of Leases.
    pub(crate) fn writes(&self) -> Vec<String> {
        let text = self.metrics.text().unwrap();
        let writes =
            text.lines().filter(|l| l.starts_with("rouse_operator_api_writes_total{") && !l.contains("\"leases\""));
        writes.map(str::to_owned).collect()
    }
}

pub(crate) async fn wait_for<K>(api: &Api<K>, name: &str, what: &str, is: impl Fn(&K) -> bool) -> K
where
    K: Clone + Debug + DeserializeOwned,
{
    let begun = Instant::now();
    loop {
        let found = api.get_opt(name).await.unwrap();
        match found {
            Some(object) if is(&object) => return object,
            other => assert!(begun.elapsed() < LIMIT, "{name}: {what}: not so within {LIMIT:?}; it is {other:#?}"),
        }
        sleep(Duration::from_millis(30)).await;
    }
}

/// Waits until `is` returns true.
pub(crate) async fn eventually(what: &str, is: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < LIMIT, "{what}: not so within {LIMIT:?}");
        sleep(Duration::from_millis(30)).await;
    }
}

/// Returns status and reason of a condition.
pub(crate) fn condition(function: &Function, type_: &str) -> (String, String) {
    let conditions = function.status.iter().flat_map(|s| &s.conditions);
    let found = conditions.filter(|c| c.type_ == type_).map(|c| (c.status.clone(), c.reason.clone())).next();
    found.unwrap_or_default()
}

pub(crate) fn message(function: &Function, type_: &str) -> String {
    let conditions = function.status.iter().flat_map(|s| &s.conditions);
    conditions.filter(|c| c.type_ == type_).map(|c| c.message.clone()).next().unwrap_or_default()
}

async fn dump<K>(api: &Api<K>) -> Vec<Value>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let list = api.list(&ListParams::default()).await.unwrap();
    list.items.into_iter().map(|object| scrub(serde_json::to_value(object).unwrap())).collect()
}

async fn versions<K>(api: &Api<K>, all: &mut Vec<String>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    for object in api.list(&ListParams::default()).await.unwrap() {
        let meta = object.meta();
        all.push(format!("{} {:?} {:?}", K::kind(&()), meta.name, meta.resource_version));
    }
}

/// Removes the fields that differ between two runs.
fn scrub(value: Value) -> Value {
    const VARYING: [&str; 12] = [
        "created",
        "since",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
        "lastTransitionTime",
        "generation",
        "observedGeneration",
        "namespace",
        "rouse.dev/function-uid",
        "selfLink",
    ];
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(name, _)| !VARYING.contains(&name.as_str()))
            .map(|(name, value)| (name, scrub(value)))
            .collect(),
        Value::Array(list) => list.into_iter().map(scrub).collect(),
        other => other,
    }
}
