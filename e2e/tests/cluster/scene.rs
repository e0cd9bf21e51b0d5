//! What every test here begins with: the cluster, and a namespace of its own in it.

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::ListParams};
use rouse_crds::names::function_selector;
use rouse_e2e::{
    Cluster,
    world::{PATIENCE, World, until},
};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The namespace that Rouse is installed in.
pub(crate) const RELEASE: &str = "rouse-system";

/// A test that stops a part of Rouse holds this alone; all others share it.
static PARTS: RwLock<()> = RwLock::const_new(());

/// A namespace, and the promise that every part of Rouse keeps running.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) cluster: Cluster,
    _shared: Option<RwLockReadGuard<'static, ()>>,
    _alone: Option<RwLockWriteGuard<'static, ()>>,
}

impl std::ops::Deref for Scene {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Scene {
    /// A namespace for the test `name`, another one in each run so that what a failed run left behind does no harm.
    pub(crate) async fn new(name: &str) -> Result<Self> {
        let shared = PARTS.read().await;
        Ok(Self { _shared: Some(shared), ..Self::bare(name).await? })
    }

    /// The same, with no other test running.
    pub(crate) async fn alone(name: &str) -> Result<Self> {
        let alone = PARTS.write().await;
        Ok(Self { _alone: Some(alone), ..Self::bare(name).await? })
    }

    async fn bare(name: &str) -> Result<Self> {
        let cluster = Cluster::of_this_checkout()?;
        let world = World::new(&cluster, &format!("e2e-{name}-{}", std::process::id())).await?;
        Ok(Self { world, cluster, _shared: None, _alone: None })
    }

    /// Runs kubectl and gives whether it succeeded, and all that it said.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> Result<(bool, String)> {
        let output = self.cluster.kubectl(args).output().await.context("cannot run kubectl")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    }

    /// `kubectl apply` of a Function in this namespace with the given spec in YAML's flow style.
    pub(crate) async fn kubectl_apply(&self, name: &str, spec: &str) -> Result<(bool, String)> {
        let file = tempfile::NamedTempFile::new()?;
        let manifest =
            format!("apiVersion: rouse.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\nspec: {spec}\n");
        std::fs::write(file.path(), manifest)?;
        let path = file.path().to_str().context("a path that is no text")?;
        self.kubectl(&["apply", "--namespace", &self.namespace, "--filename", path]).await
    }

    /// What the activators' admin port answers to `GET path`, one text for each activator, through the API server.
    pub(crate) async fn of_activators(&self, path: &str) -> Result<Vec<String>> {
        self.of_component("activator", path).await
    }

    /// The same of the operators. What a replica that does not lead refuses to tell is left out.
    pub(crate) async fn of_operators(&self, path: &str) -> Result<Vec<String>> {
        self.of_component("operator", path).await
    }

    async fn of_component(&self, component: &str, path: &str) -> Result<Vec<String>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), RELEASE);
        let labels = format!("app.kubernetes.io/component={component}");
        let list = pods.list(&ListParams::default().labels(&labels)).await?;
        let mut texts = vec![];
        for pod in list.items.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
            let uri = format!("/api/v1/namespaces/{RELEASE}/pods/{}:9090/proxy{path}", pod.name_any());
            texts.push(self.client.request_text(http::Request::get(uri).body(vec![])?).await?);
        }
        anyhow::ensure!(!texts.is_empty(), "no {component} is running");
        Ok(texts)
    }

    /// Sum over the activators of the metric `name` with all of `labels` (as they stand in the text form).
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let texts = self.of_activators("/metrics").await?;
        let lines = texts.iter().flat_map(|t| t.lines());
        let matching = lines.filter(|l| {
            l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| l.contains(label))
        });
        Ok(matching.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Waits until no pod of a function is wanted, nor there.
    pub(crate) async fn asleep(&self, name: &str) -> Result<()> {
        until(&format!("{name} asleep"), PATIENCE, || async {
            let list = self.deployments().list(&ListParams::default().labels(&function_selector(name))).await?;
            let wanted = list.items.iter().filter_map(|d| d.spec.as_ref()?.replicas).sum::<i32>();
            Ok((wanted == 0 && self.pods(name).await?.is_empty()).then_some(()))
        })
        .await
    }

    /// Ends the test: its namespace goes. A failed test does not come here, so that one can look at what it left.
    pub(crate) async fn done(self) -> Result<()> {
        self.world.leave().await
    }
}
