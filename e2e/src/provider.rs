//! Who makes the cluster.

pub mod current;
pub mod kind;
pub mod local;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Who creates the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Kubernetes in a network namespace of this machine; needs root, no Docker.
    Local,
    /// Kubernetes in Docker, by the `kind` tool.
    Kind,
    /// The cluster of your kubeconfig, which is neither created nor removed.
    Current,
}

impl Provider {
    /// kind where a Docker engine answers, else local.
    pub async fn default_here() -> Self {
        if crate::host::docker_responds().await { Self::Kind } else { Self::Local }
    }
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Kind => "kind",
            Self::Current => "current",
        })
    }
}

/// A Kubernetes that answers, before anything of ours is on it.
#[derive(Clone, Debug)]
pub struct Node {
    /// A kubeconfig with all rights.
    pub kubeconfig: PathBuf,
    /// Where the ingress will answer.
    pub ingress: SocketAddr,
    /// The node's address, if this machine has a route to it and to its pods.
    pub address: Option<IpAddr>,
}
