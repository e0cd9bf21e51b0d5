//! A cluster that is up: how tests and benchmarks reach it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::places::Places;
use crate::process::{command, run, tail};
use crate::provider::Provider;
use crate::state::State;

/// A running Kubernetes with an ingress and, unless it was left out, Rouse.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// Its name, unique on this machine.
    pub name: String,
    /// Who made it.
    pub provider: Provider,
    /// A kubeconfig with all rights.
    pub kubeconfig: PathBuf,
    /// Where the cluster's ingress answers plain HTTP, reachable from this machine.
    pub ingress: SocketAddr,
    /// The kubectl that belongs to it.
    pub kubectl: PathBuf,
    /// Helm.
    pub helm: PathBuf,
    /// The domain of default hosts: `{name}.{namespace}.{domain}`.
    pub domain: String,
    /// Image references by short name: `rouse-operator`, `rouse-activator`, `rouse-hello`, and for tests `rouse-suites`.
    pub images: BTreeMap<String, String>,
    /// The node's own address, if this machine has a route to it and to the pods (local provider).
    pub node: Option<IpAddr>,
    /// The cluster's folder: logs, configuration, state.
    pub folder: PathBuf,
}

impl Cluster {
    fn path(places: &Places, name: &str) -> PathBuf {
        places.cluster(name).join("cluster.json")
    }

    /// The cluster that `cargo e2e up` made last under this name.
    pub fn load(places: &Places, name: &str) -> Result<Self> {
        let path = Self::path(places, name);
        let bytes = std::fs::read(&path)
            .with_context(|| format!("Cluster `{name}` not found ({}): run `cargo e2e up`", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("Cannot read {}", path.display()))
    }

    /// The cluster of this checkout, or the one that `ROUSE_E2E_NAME` names.
    pub fn of_this_checkout() -> Result<Self> {
        let places = Places::discover()?;
        let name = std::env::var("ROUSE_E2E_NAME").unwrap_or_else(|_| places.default_name());
        Self::load(&places, &name)
    }

    /// Writes it down for [`Cluster::load`].
    pub fn save(&self, places: &Places) -> Result<()> {
        let path = Self::path(places, &self.name);
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("Cannot write {}", path.display()))
    }

    /// A kubectl command for this cluster and no other.
    pub fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        kubectl(&self.kubectl, &self.kubeconfig, args)
    }

    /// A helm command for this cluster and no other.
    pub fn helm<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut helm = command(&self.helm, args);
        helm.env("KUBECONFIG", &self.kubeconfig);
        // Its caches and settings stay out of the user's.
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(variable, self.folder.join("helm"));
        }
        helm
    }

    /// Applies manifests (YAML or JSON) on the server side.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        apply(&self.kubectl, &self.kubeconfig, manifests).await
    }

    /// The process of a node's daemon on this machine, if the provider has one: for tests that stop it.
    pub fn daemon(&self, places: &Places, name: &str) -> Result<u32> {
        let state = State::read(&places.cluster(&self.name))?.context("The cluster has no state file")?;
        let entry = state.process(name).with_context(|| format!("This provider runs no {name} on the host"))?;
        // What is recorded is nsenter, which waits for the daemon it has started in the node's namespaces.
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", entry.pid))?;
        let child = children.split_whitespace().next().with_context(|| format!("{name} is not running"))?;
        Ok(child.parse()?)
    }
}

/// A kubectl command with this kubeconfig, whatever the user's environment says.
pub fn kubectl<S: AsRef<std::ffi::OsStr>>(
    program: &std::path::Path,
    kubeconfig: &std::path::Path,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut kubectl = command(program, args);
    kubectl.env("KUBECONFIG", kubeconfig);
    kubectl
}

/// What kubectl says when a thing that was made a moment ago is not known yet, or the API server is just starting.
const PASSING: [&str; 5] = ["no matches for kind", "not found", "connection refused", "EOF", "ServiceUnavailable"];

/// Applies manifests (YAML or JSON) on the server side; for up to 30 s again while what they refer to is not known yet.
pub async fn apply(program: &std::path::Path, kubeconfig: &std::path::Path, manifests: &str) -> Result<()> {
    let attempt = async || {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let mut child = kubectl(program, kubeconfig, args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("Cannot run kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no stdin")?;
        stdin.write_all(manifests.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            bail!("kubectl apply failed:\n{}", tail(&String::from_utf8_lossy(&output.stderr)));
        }
        Ok(())
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        match attempt().await {
            Err(error) if tokio::time::Instant::now() >= deadline => return Err(error),
            Err(error) if !PASSING.iter().any(|passing| error.to_string().contains(passing)) => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(300)).await,
            Ok(()) => return Ok(()),
        }
    }
}

/// Waits until a workload (`deployment/x`, `daemonset/x`) has rolled out.
pub async fn rolled_out(
    program: &std::path::Path,
    kubeconfig: &std::path::Path,
    namespace: &str,
    what: &str,
) -> Result<()> {
    let wait = ["--namespace", namespace, "wait", "--for=create", what, "--timeout=30s"];
    run(kubectl(program, kubeconfig, wait)).await?;
    let status = ["--namespace", namespace, "rollout", "status", what, "--timeout=180s"];
    run(kubectl(program, kubeconfig, status)).await.map(|_| ())
}
