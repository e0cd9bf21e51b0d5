//! Kubernetes in Docker, by the `kind` tool: built from its Go module unless it is on PATH.
//!
//! `KIND_NODE_IMAGE` names another node image than kind's own, for machines without an image registry.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::Node;
use crate::cluster::kubectl;
use crate::gomod::{CLUSTER, KIND};
use crate::host::find_program;
use crate::images::Archive;
use crate::places::Places;
use crate::plan::title;
use crate::process::{command, run, tail};
use crate::progress::Progress;
use crate::state::State;

/// The programs that this provider needs on the host.
#[derive(Clone, Debug)]
pub struct Programs {
    kind: PathBuf,
    /// kubectl.
    pub kubectl: PathBuf,
}

impl Programs {
    /// Builds what the cache does not have.
    pub async fn build(places: &Places, progress: &Progress) -> Result<Self> {
        let kind = match find_program("kind") {
            Some(kind) => kind,
            None => KIND.build(places, &["kind"], progress).await?.join("kind"),
        };
        Ok(Self { kind, kubectl: CLUSTER.build(places, &["kubectl"], progress).await?.join("kubectl") })
    }

    async fn exists(&self, cluster: &str) -> Result<bool> {
        Ok(run(command(&self.kind, ["get", "clusters"])).await?.lines().any(|line| line == cluster))
    }
}

fn cluster_name(name: &str) -> String {
    format!("rouse-{name}")
}

fn node(folder: &Path, port: u16) -> Node {
    Node { kubeconfig: folder.join("kubeconfig"), ingress: (Ipv4Addr::LOCALHOST, port).into(), address: None }
}

/// Gives the running cluster if all of it is well.
pub async fn find(places: &Places, name: &str, state: &State, programs: &Programs) -> Result<Option<Node>> {
    let Some(port) = state.ingress_port.filter(|_| state.complete) else { return Ok(None) };
    if !programs.exists(&cluster_name(name)).await? {
        return Ok(None);
    }
    let node = node(&places.cluster(name), port);
    Ok(is_ready(programs, &node).await.then_some(node))
}

async fn is_ready(programs: &Programs, node: &Node) -> bool {
    let args = ["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=5s"];
    run(kubectl(&programs.kubectl, &node.kubeconfig, args)).await.is_ok()
}

/// Makes a cluster of one node whose port 80 is a free port of this machine's loopback address.
pub async fn start(
    places: &Places,
    name: &str,
    state: &mut State,
    programs: &Programs,
    progress: &Progress,
) -> Result<Node> {
    let step = progress.step(title::START_KIND);
    let folder = places.cluster(name);
    // Free now; should somebody take it before Docker does, kind says so and the next `up` chooses another.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    state.ingress_port = Some(port);
    state.write(&folder)?;
    let config = json!({
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [{
            "role": "control-plane",
            "extraPortMappings": [{"containerPort": 80, "hostPort": port, "listenAddress": "127.0.0.1"}],
        }],
    });
    let node = node(&folder, port);
    let mut create = command(
        &programs.kind,
        ["create", "cluster", "--name", &cluster_name(name), "--config", "-", "--wait", "180s"],
    );
    create.arg("--kubeconfig").arg(&node.kubeconfig);
    if let Some(image) = std::env::var_os("KIND_NODE_IMAGE") {
        create.arg("--image").arg(image);
    }
    let mut child =
        create.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("Cannot run kind")?;
    let mut stdin = child.stdin.take().context("kind has no stdin")?;
    stdin.write_all(config.to_string().as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    ensure!(
        output.status.success(),
        "kind could not create the cluster:\n{}",
        tail(&String::from_utf8_lossy(&output.stderr))
    );
    // `--wait` ends well even if the node did not get ready.
    let ready = ["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s"];
    run(kubectl(&programs.kubectl, &node.kubeconfig, ready))
        .await
        .context("The node of the kind cluster did not become ready")?;
    state.complete = true;
    state.write(&folder)?;
    step.done();
    Ok(node)
}

/// Puts images into the cluster's node.
pub async fn load(name: &str, programs: &Programs, archives: &[Archive]) -> Result<()> {
    for archive in archives {
        let mut load = command(&programs.kind, ["load", "image-archive", "--name", &cluster_name(name)]);
        load.arg(&archive.path);
        run(load).await.with_context(|| format!("Cannot load {}", archive.reference))?;
    }
    Ok(())
}

/// Deletes the cluster and its folder. Returns whether there was anything.
///
/// # Errors
///
/// If kind or Docker does not respond; the folder stays then.
pub async fn sweep(places: &Places, name: &str, programs: &Programs) -> Result<bool> {
    let (cluster, folder) = (cluster_name(name), places.cluster(name));
    let exists = programs.exists(&cluster).await?;
    if exists {
        let mut delete = command(&programs.kind, ["delete", "cluster", "--name", &cluster]);
        // Without it, kind edits the user's own kubeconfig.
        delete.arg("--kubeconfig").arg(folder.join("kubeconfig"));
        run(delete).await?;
    }
    let had_folder = folder.exists();
    if had_folder {
        std::fs::remove_dir_all(&folder).with_context(|| format!("Cannot remove {}", folder.display()))?;
    }
    Ok(exists || had_folder)
}

/// What deletes the cluster's node by hand.
pub fn delete_command(name: &str) -> String {
    format!("docker rm --force --volumes {}-control-plane", cluster_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::Provider;

    /// A kind that prints `stdout` and exits with `code`, whatever it is asked for.
    fn programs(folder: &Path, stdout: &str, code: u8) -> Programs {
        use std::os::unix::fs::PermissionsExt as _;
        let kind = folder.join("kind");
        std::fs::write(&kind, format!("#!/bin/sh\necho '{stdout}'\nexit {code}\n")).unwrap();
        std::fs::set_permissions(&kind, std::fs::Permissions::from_mode(0o755)).unwrap();
        Programs { kind, kubectl: "/kubectl".into() }
    }

    fn places(folder: &Path) -> Places {
        Places { repo: "/".into(), cache: "/".into(), target: "/".into(), state: folder.into() }
    }

    #[tokio::test]
    async fn a_kind_that_fails_keeps_the_record() {
        let folder = tempfile::tempdir().unwrap();
        let places = places(folder.path());
        State::new(Provider::Kind).write(&places.cluster("a")).unwrap();
        let failing = programs(folder.path(), "", 1);
        assert!(sweep(&places, "a", &failing).await.is_err());
        assert!(places.cluster("a").exists());
        let empty = programs(folder.path(), "rouse-other", 0);
        assert!(sweep(&places, "a", &empty).await.unwrap());
        assert!(!places.cluster("a").exists());
    }
}
