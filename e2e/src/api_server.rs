//! kube-apiserver and etcd on loopback, for the tests of tier 2. They run until the value is dropped.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::process::Child;

use crate::process::{command, run, succeeds, wait_for};

/// A running API server. Its processes are killed when it is dropped, and when this process dies.
#[derive(Debug)]
pub struct ApiServer {
    /// Kubeconfig with administrator rights.
    pub kubeconfig: PathBuf,
    _folder: tempfile::TempDir,
    processes: Vec<Child>,
}

impl ApiServer {
    /// Starts etcd and kube-apiserver from the programs in `bin`, on free ports.
    ///
    /// # Errors
    ///
    /// If one does not start. The error contains the path of the logs, which are kept.
    pub async fn start(bin: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("rouse-api-server").tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let (etcd_port, peer_port, port) = (free_port()?, free_port()?, free_port()?);
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");

        let key = rcgen::KeyPair::generate()?;
        std::fs::write(path("service-account.key"), key.serialize_pem())?;
        std::fs::write(path("service-account.pub"), key.public_key_pem())?;
        // A fixed token is sufficient: the server is on loopback and temporary.
        std::fs::write(path("tokens.csv"), "rouse,admin,admin,\"system:masters\"\n")?;
        let kubeconfig = path("kubeconfig");
        std::fs::write(&kubeconfig, serde_json::to_string_pretty(&kubeconfig_of(port))?)?;

        let text = |name: &str| path(name).display().to_string();
        let etcd = daemon(
            bin,
            "etcd",
            folder.path(),
            &[
                format!("--data-dir={}", text("etcd")),
                format!("--listen-client-urls={etcd_url}"),
                format!("--advertise-client-urls={etcd_url}"),
                format!("--listen-peer-urls={peer_url}"),
                "--unsafe-no-fsync".to_owned(),
            ],
        )?;
        let server = daemon(
            bin,
            "kube-apiserver",
            folder.path(),
            &[
                format!("--etcd-servers={etcd_url}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                format!("--cert-dir={}", text("certificates")),
                format!("--token-auth-file={}", text("tokens.csv")),
                "--authorization-mode=RBAC".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-key-file={}", text("service-account.pub")),
                format!("--service-account-signing-key-file={}", text("service-account.key")),
                // No controller creates service accounts, and no test creates pods that need one.
                "--disable-admission-plugins=ServiceAccount".to_owned(),
            ],
        )?;
        let kubectl = bin.join("kubectl");
        let ready = wait_for("The API server's readiness", Duration::from_secs(90), async || {
            let mut probe = command(&kubectl, ["get", "--raw", "/readyz"]);
            probe.env("KUBECONFIG", &kubeconfig);
            Ok(succeeds(probe).await)
        })
        .await;
        if let Err(error) = ready {
            let kept = folder.keep();
            return Err(error.context(format!("The logs are in {}", kept.display())));
        }
        Ok(Self { kubeconfig, _folder: folder, processes: vec![server, etcd] })
    }
}

impl ApiServer {
    /// Pins its processes with all threads to one core, so that they do not affect measurements on another core.
    ///
    /// # Errors
    ///
    /// If the core does not exist, or a process has exited.
    pub async fn pin(&self, core: &str) -> Result<()> {
        for process in &self.processes {
            let pid = process.id().context("the API server has ended")?.to_string();
            run(command("taskset", ["--all-tasks", "--cpu-list", "--pid", core, &pid])).await?;
        }
        Ok(())
    }
}

/// Starts a program with its log in `folder`. It is killed when this process exits.
fn daemon(bin: &Path, name: &str, folder: &Path, args: &[String]) -> Result<Child> {
    let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
    let mut start = command("setpriv", ["--pdeathsig", "KILL", "--"]);
    start.arg(bin.join(name)).args(args).stdout(log.try_clone()?).stderr(log).stdin(Stdio::null());
    start.spawn().with_context(|| format!("Cannot start {name}"))
}

/// Returns a free port. If another process takes it first, the start fails with an error.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn kubeconfig_of(port: u16) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "tests",
        "clusters": [{"name": "tests", "cluster": {"server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "admin", "user": {"token": "rouse"}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "admin"}}],
    })
}
