//! A running cluster, and how tests and benchmarks access it.

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

/// A running Kubernetes cluster with an ingress controller and, by default, Rouse.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cluster {
    /// Name, unique on this machine.
    pub name: String,
    /// Provider that created it.
    pub provider: Provider,
    /// Kubeconfig with administrator rights.
    pub kubeconfig: PathBuf,
    /// Address of the ingress for plain HTTP, reachable from this machine.
    pub ingress: SocketAddr,
    /// Path of kubectl in the version of the cluster.
    pub kubectl: PathBuf,
    /// Path of Helm.
    pub helm: PathBuf,
    /// Domain of default hosts: `{name}.{namespace}.{domain}`.
    pub domain: String,
    /// Image references by short name: `rouse-operator`, `rouse-activator`, `rouse-hello`, and for tests `rouse-suites`.
    pub images: BTreeMap<String, String>,
    /// Address of the node, if this machine has a route to it and to the pods (local provider).
    pub node: Option<IpAddr>,
    /// Folder of the cluster: logs, configuration, state.
    pub folder: PathBuf,
}

impl Cluster {
    fn path(places: &Places, name: &str) -> PathBuf {
        places.cluster(name).join("cluster.json")
    }

    /// Loads the cluster that `cargo e2e up` created under this name.
    pub fn load(places: &Places, name: &str) -> Result<Self> {
        let path = Self::path(places, name);
        let bytes = std::fs::read(&path)
            .with_context(|| format!("Cluster `{name}` not found ({}): run `cargo e2e up`", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("Cannot read {}", path.display()))
    }

    /// Loads the cluster of this checkout, or the one with the name in `ROUSE_E2E_NAME`.
    pub fn of_this_checkout() -> Result<Self> {
        let places = Places::discover()?;
        let name = std::env::var("ROUSE_E2E_NAME").unwrap_or_else(|_| places.default_name());
        Self::load(&places, &name)
    }

    /// Saves the cluster for [`Cluster::load`].
    pub fn save(&self, places: &Places) -> Result<()> {
        let path = Self::path(places, &self.name);
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("Cannot write {}", path.display()))
    }

    /// Returns a kubectl command for this cluster.
    pub fn kubectl<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        kubectl(&self.kubectl, &self.kubeconfig, args)
    }

    /// Returns a Helm command for this cluster.
    pub fn helm<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut helm = command(&self.helm, args);
        helm.env("KUBECONFIG", &self.kubeconfig);
        // Keeps caches and settings out of the user's home.
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(variable, self.folder.join("helm"));
        }
        helm
    }

    /// Applies manifests (YAML or JSON) by server-side apply.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        apply(&self.kubectl, &self.kubeconfig, manifests).await
    }

    /// Returns the PID of a node daemon on this machine, if the provider has one, for tests that stop it.
    pub fn daemon(&self, places: &Places, name: &str) -> Result<u32> {
        let state = State::read(&places.cluster(&self.name))?.context("The cluster has no state file")?;
        let entry = state.process(name).with_context(|| format!("This provider runs no {name} on the host"))?;
        // The recorded process is nsenter, the parent of the daemon in the node's namespaces.
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", entry.pid))?;
        let child = children.split_whitespace().next().with_context(|| format!("{name} is not running"))?;
        Ok(child.parse()?)
    }
}

/// Returns a kubectl command with this kubeconfig, regardless of the environment.
pub fn kubectl<S: AsRef<std::ffi::OsStr>>(
    program: &std::path::Path,
    kubeconfig: &std::path::Path,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut kubectl = command(program, args);
    kubectl.env("KUBECONFIG", kubeconfig);
    kubectl
}

/// Errors of kubectl that are transient: a new resource is not known yet, or the API server is starting.
const TRANSIENT: [&str; 5] = ["no matches for kind", "not found", "connection refused", "EOF", "ServiceUnavailable"];

/// Applies manifests (YAML or JSON) by server-side apply, and retries transient errors for up to 30 s.
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
            Err(error) if !TRANSIENT.iter().any(|transient| error.to_string().contains(transient)) => {
                return Err(error);
            }
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
