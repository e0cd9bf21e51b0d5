//! The two entry points from outside of the cluster: the ingress, and the public port of an activator.

use std::{net::SocketAddr, process::Stdio};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Child,
};

use crate::test_env::{RELEASE, TestEnv};

/// An entry point.
pub(crate) struct EntryPoint {
    /// `ingress` or `direct`: part of the names of the Functions that are requested through it.
    pub(crate) name: &'static str,
    /// Address for requests.
    pub(crate) address: SocketAddr,
    /// `kubectl port-forward`, if this machine has no route to pods. Killed on drop.
    _forward: Option<Child>,
}

impl EntryPoint {
    /// Returns the URL of a host, for clients that resolve every name to the address.
    pub(crate) fn url(&self, scheme: &str, host: &str) -> String {
        format!("{scheme}://{host}:{}", self.address.port())
    }
}

impl TestEnv {
    /// Returns both entry points.
    pub(crate) async fn entry_points(&self) -> Result<[EntryPoint; 2]> {
        let ingress = EntryPoint { name: "ingress", address: self.cluster.ingress, _forward: None };
        Ok([ingress, self.direct().await?])
    }

    /// Returns the public port of an activator.
    pub(crate) async fn direct(&self) -> Result<EntryPoint> {
        let (address, forward) = match self.cluster.node {
            Some(_) => (self.activator_address().await?, None),
            None => {
                let (address, forward) = self.forward().await?;
                (address, Some(forward))
            }
        };
        Ok(EntryPoint { name: "direct", address, _forward: forward })
    }

    async fn activator_address(&self) -> Result<SocketAddr> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), RELEASE);
        let list = pods.list(&ListParams::default().labels("app.kubernetes.io/component=activator")).await?;
        let pod = list.items.into_iter().find(|p| p.metadata.deletion_timestamp.is_none());
        let pod = pod.context("no activator is running")?;
        let ip = pod.status.and_then(|s| s.pod_ip).context("the activator has no address")?;
        let containers = pod.spec.map(|s| s.containers).unwrap_or_default();
        let mut ports = containers.into_iter().flat_map(|c| c.ports.unwrap_or_default());
        let public = ports.find(|p| p.name.as_deref() == Some("public")).context("the activator has no public port")?;
        Ok(SocketAddr::new(ip.parse()?, u16::try_from(public.container_port)?))
    }

    async fn forward(&self) -> Result<(SocketAddr, Child)> {
        let args = ["--namespace", RELEASE, "port-forward", "service/rouse-activator", ":8080"];
        let mut child = self.cluster.kubectl(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("kubectl has no output")?).lines();
        let line = lines.next_line().await?.context("kubectl port-forward ended")?;
        // Forwarding from 127.0.0.1:40001 -> 8080
        let address = line.split_whitespace().nth(2).and_then(|word| word.parse().ok());
        // It prints a line for each connection, and would exit if the pipe were closed.
        tokio::spawn(async move { while lines.next_line().await.is_ok_and(|line| line.is_some()) {} });
        Ok((address.with_context(|| format!("kubectl port-forward printed: {line}"))?, child))
    }
}
