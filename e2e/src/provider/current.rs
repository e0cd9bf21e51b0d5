//! The cluster that the user's kubeconfig points at. It is neither made nor removed, and it pulls images from a registry
//! that the user has pushed them to.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Node;
use crate::gomod::CLUSTER;
use crate::host::find_program;
use crate::places::Places;
use crate::process::{command, run};
use crate::progress::Progress;

/// The user's kubectl, or one that is built.
pub async fn kubectl(places: &Places, progress: &Progress) -> Result<PathBuf> {
    match find_program("kubectl") {
        Some(kubectl) => Ok(kubectl),
        None => Ok(CLUSTER.build(places, &["kubectl"], progress).await?.join("kubectl")),
    }
}

/// Reads the user's kubeconfig (its current context alone) into the cluster's folder.
pub async fn find(places: &Places, name: &str, kubectl: &std::path::Path) -> Result<Node> {
    let folder = places.cluster(name);
    std::fs::create_dir_all(&folder)?;
    let view = command(kubectl, ["config", "view", "--minify", "--flatten", "--raw"]);
    let config = run(view).await.context("`--provider current` needs a kubeconfig with a current context")?;
    let kubeconfig = folder.join("kubeconfig");
    write_private(&kubeconfig, &config)?;
    let version = crate::cluster::kubectl(kubectl, &kubeconfig, ["get", "--raw", "/version", "--request-timeout=10s"]);
    run(version).await.context("The cluster of the current context does not respond")?;
    Ok(Node { kubeconfig, ingress: ingress()?, address: None })
}

fn write_private(path: &std::path::Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

fn ingress() -> Result<SocketAddr> {
    let text = std::env::var("ROUSE_E2E_INGRESS").context("ROUSE_E2E_INGRESS is not set")?;
    let resolved = text.to_socket_addrs().with_context(|| format!("ROUSE_E2E_INGRESS={text} is not host:port"))?.next();
    resolved.with_context(|| format!("ROUSE_E2E_INGRESS={text} does not resolve to an address"))
}

/// The registry part of Rouse's image references.
pub fn registry() -> Result<String> {
    std::env::var("ROUSE_E2E_REGISTRY").context("ROUSE_E2E_REGISTRY is not set")
}
