//! The table of hosts.
//!
//! A request reads it without a lock. It is cut into many parts so that a change copies one small part, however many hosts
//! there are.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use arc_swap::ArcSwap;

use super::Host;
use crate::admit::Gate;

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the ingress: only public functions, by their public hosts.
    Public,
    /// From inside the cluster: every function by its names in the cluster, and public ones by their public hosts too.
    Cluster,
}

/// The table of hosts.
#[derive(Debug)]
pub struct Table {
    public: Hosts,
    /// By `name.namespace`.
    cluster: Hosts,
    /// `.svc.` and the cluster's domain.
    cluster_suffix: String,
}

#[derive(Debug)]
struct Hosts {
    hasher: RandomState,
    parts: Vec<ArcSwap<HashMap<Arc<str>, Arc<Gate>>>>,
}

/// With ten thousand hosts a part has some forty.
const PARTS: usize = 256;

impl Table {
    /// A table without hosts for a cluster of this domain.
    #[must_use]
    pub fn new(cluster_domain: &str) -> Self {
        let cluster_suffix = format!(".svc.{}", cluster_domain.trim_end_matches('.').to_ascii_lowercase());
        Self { public: Hosts::new(), cluster: Hosts::new(), cluster_suffix }
    }

    /// The gate of the function that answers to `host`.
    #[must_use]
    pub fn find(&self, side: Side, host: &Host<'_>) -> Option<Arc<Gate>> {
        let host = host.as_str();
        match side {
            Side::Public => self.public.get(host),
            Side::Cluster => match host.strip_suffix(&self.cluster_suffix).or_else(|| host.strip_suffix(".svc")) {
                // It is the name of a Service, or else of a function in a namespace `svc`. It is nothing that somebody else
                // may have claimed as a custom host.
                Some(name) => self.cluster.get(name).or_else(|| self.cluster.get(host)),
                None => self.cluster.get(host).or_else(|| self.public.get(host)),
            },
        }
    }

    /// Gives a public host to a function, or takes it from all.
    pub(super) fn set_public(&self, host: &str, gate: Option<&Arc<Gate>>) {
        self.public.set(host, gate);
    }

    /// Gives the names in the cluster to a function, or takes them from all.
    pub(super) fn set_cluster(&self, namespace: &str, name: &str, gate: Option<&Arc<Gate>>) {
        self.cluster.set(&format!("{name}.{namespace}"), gate);
    }
}

impl Hosts {
    fn new() -> Self {
        Self { hasher: RandomState::new(), parts: (0..PARTS).map(|_| ArcSwap::default()).collect() }
    }

    fn part(&self, host: &str) -> &ArcSwap<HashMap<Arc<str>, Arc<Gate>>> {
        // The remainder is smaller than the number of parts, whatever the width of a pointer.
        &self.parts[(self.hasher.hash_one(host) % PARTS as u64) as usize]
    }

    fn get(&self, host: &str) -> Option<Arc<Gate>> {
        self.part(host).load().get(host).cloned()
    }

    fn set(&self, host: &str, gate: Option<&Arc<Gate>>) {
        let part = self.part(host);
        let mut hosts = HashMap::clone(&part.load());
        match gate {
            Some(gate) => hosts.insert(host.into(), gate.clone()),
            None => hosts.remove(host),
        };
        part.store(Arc::new(hosts));
    }
}
