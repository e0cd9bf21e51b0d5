//! Environment of a test: the cluster, and a namespace for the test.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::ListParams};
use rouse_crds::names::function_selector;
use rouse_e2e::{
    Cluster,
    http_client::HttpClient,
    workspace::{TIMEOUT, Workspace, until},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::timeout,
};

/// Namespace of the release.
pub(crate) const RELEASE: &str = "rouse-system";

/// Held exclusively by a test that restarts or reconfigures Rouse, and shared by all others.
static RELEASE_LOCK: RwLock<()> = RwLock::const_new(());

/// A namespace for one test, with a lock on the release.
pub(crate) struct TestEnv {
    pub(crate) workspace: Workspace,
    pub(crate) cluster: Cluster,
    _shared: Option<RwLockReadGuard<'static, ()>>,
    _exclusive: Option<RwLockWriteGuard<'static, ()>>,
}

impl std::ops::Deref for TestEnv {
    type Target = Workspace;

    fn deref(&self) -> &Workspace {
        &self.workspace
    }
}

impl TestEnv {
    /// Creates a namespace for the test `name`. It is unique for each run, so that objects of a failed run do not interfere.
    pub(crate) async fn new(name: &str) -> Result<Self> {
        let shared = RELEASE_LOCK.read().await;
        Ok(Self { _shared: Some(shared), ..Self::bare(name).await? })
    }

    /// Like [`Self::new`], while no other test runs.
    pub(crate) async fn exclusive(name: &str) -> Result<Self> {
        let exclusive = RELEASE_LOCK.write().await;
        Ok(Self { _exclusive: Some(exclusive), ..Self::bare(name).await? })
    }

    async fn bare(name: &str) -> Result<Self> {
        let cluster = Cluster::of_this_checkout()?;
        let workspace = Workspace::new(&cluster, &format!("e2e-{name}-{}", std::process::id())).await?;
        Ok(Self { workspace, cluster, _shared: None, _exclusive: None })
    }

    /// Runs kubectl and returns whether it succeeded, and its output.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> Result<(bool, String)> {
        let output = self.cluster.kubectl(args).output().await.context("cannot run kubectl")?;
        let printed = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&printed).into_owned()))
    }

    /// Runs `kubectl apply` of a Function with a spec in YAML flow style.
    pub(crate) async fn kubectl_apply(&self, name: &str, spec: &str) -> Result<(bool, String)> {
        let file = tempfile::NamedTempFile::new()?;
        let manifest =
            format!("apiVersion: rouse.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\nspec: {spec}\n");
        std::fs::write(file.path(), manifest)?;
        let path = file.path().to_str().context("the path is not UTF-8")?;
        self.kubectl(&["apply", "--namespace", &self.namespace, "--filename", path]).await
    }

    /// Returns the response of each activator's admin port to `GET path`, through the API server.
    pub(crate) async fn of_activators(&self, path: &str) -> Result<Vec<String>> {
        self.of_component("activator", path).await
    }

    /// Like [`Self::of_activators`], for the operators.
    pub(crate) async fn of_operators(&self, path: &str) -> Result<Vec<String>> {
        self.of_component("operator", path).await
    }

    async fn of_component(&self, component: &str, path: &str) -> Result<Vec<String>> {
        let mut texts = vec![];
        for pod in self.pods_of_component(component).await? {
            let uri = format!("/api/v1/namespaces/{RELEASE}/pods/{pod}:9090/proxy{path}");
            texts.push(self.client.request_text(http::Request::get(uri).body(vec![])?).await?);
        }
        Ok(texts)
    }

    /// Returns the response of each operator to `GET path` over its loopback interface, whatever its status is.
    pub(crate) async fn within_operators(&self, path: &str) -> Result<Vec<String>> {
        let mut texts = vec![];
        for pod in self.pods_of_component("operator").await? {
            let pod = format!("pod/{pod}");
            let mut forward = self.cluster.kubectl(["port-forward", "--namespace", RELEASE, &pod, ":9090"]);
            let mut forward =
                forward.stdout(Stdio::piped()).kill_on_drop(true).spawn().context("cannot run kubectl")?;
            let mut lines = BufReader::new(forward.stdout.take().context("no stdout")?).lines();
            let line = timeout(TIMEOUT, lines.next_line()).await.context("no port is forwarded")??.unwrap_or_default();
            let address = line.strip_prefix("Forwarding from ").and_then(|rest| rest.split(' ').next());
            let address = address.and_then(|a| a.parse().ok()).with_context(|| format!("kubectl printed {line:?}"))?;
            texts.push(HttpClient::new(address).get("localhost", path).await?.text());
        }
        Ok(texts)
    }

    async fn pods_of_component(&self, component: &str) -> Result<Vec<String>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), RELEASE);
        let labels = format!("app.kubernetes.io/component={component}");
        let list = pods.list(&ListParams::default().labels(&labels)).await?;
        let running = list.items.iter().filter(|p| p.metadata.deletion_timestamp.is_none());
        let names: Vec<_> = running.map(ResourceExt::name_any).collect();
        anyhow::ensure!(!names.is_empty(), "no {component} is running");
        Ok(names)
    }

    /// Returns the sum of a metric over the activators, with all of `labels` (in the text format).
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let texts = self.of_activators("/metrics").await?;
        let lines = texts.iter().flat_map(|t| t.lines());
        let matching = lines.filter(|l| {
            l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| l.contains(label))
        });
        Ok(matching.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Waits until no pod of a Function is desired and none exists.
    pub(crate) async fn scaled_to_zero(&self, name: &str) -> Result<()> {
        until(&format!("{name} at zero"), TIMEOUT, || async {
            let list = self.deployments().list(&ListParams::default().labels(&function_selector(name))).await?;
            let wanted = list.items.iter().filter_map(|d| d.spec.as_ref()?.replicas).sum::<i32>();
            Ok((wanted == 0 && self.pods(name).await?.is_empty()).then_some(()))
        })
        .await
    }

    /// Deletes the namespace. A failed test keeps it for inspection.
    pub(crate) async fn finish(self) -> Result<()> {
        self.workspace.delete_namespace().await
    }
}
