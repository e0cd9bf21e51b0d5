//! The table of hosts and paths.
//!
//! A request reads it without a lock. It is cut into many parts so that a change copies one small part, however many hosts
//! there are, and however many paths a host has: a path below a host is an entry of its own, under both together.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use arc_swap::ArcSwap;

use super::{
    Host, Rules,
    path::{self, Ambiguous, ROOT},
};
use crate::admit::Gate;

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From the ingress: only public functions, by their public hosts.
    Public,
    /// From inside the cluster: every function by its names in the cluster, and public ones by their public hosts too.
    Cluster,
}

/// Where a host and a path lead.
#[derive(Clone, Debug)]
pub struct Route {
    /// The function.
    pub gate: Arc<Gate>,
    /// The one of its revisions that is meant, if the host is of a tag; else they have their shares.
    pub revision: Option<Arc<str>>,
    /// What it says of requests, if anything.
    pub rules: Option<Arc<Rules>>,
}

/// Why a request leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrouted {
    /// Nobody has the host.
    Host,
    /// Nobody has the path on this host.
    Path,
    /// The path can be read in several ways that do not lead to the same.
    Ambiguous(Ambiguous),
}

/// The table of hosts and paths.
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
    /// By host, and by host and path where paths of a host lead to different ends.
    parts: Vec<ArcSwap<HashMap<Arc<str>, Entry>>>,
}

#[derive(Clone, Debug)]
enum Entry {
    /// What is meant leads here.
    Whole(Route),
    /// A host whose paths are to be looked up; if none leads further, this does.
    Split(Option<Route>),
}

/// With ten thousand hosts a part has some forty.
const PARTS: usize = 256;

impl Route {
    /// Whether both lead to the same end, by the same rules.
    pub(super) fn same(&self, other: &Self) -> bool {
        let rules = match (&self.rules, &other.rules) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
            (None, None) => true,
            _ => false,
        };
        Arc::ptr_eq(&self.gate, &other.gate) && self.revision == other.revision && rules
    }
}

impl Table {
    /// A table without hosts for a cluster of this domain.
    #[must_use]
    pub fn new(cluster_domain: &str) -> Self {
        let cluster_suffix = format!(".svc.{}", cluster_domain.trim_end_matches('.').to_ascii_lowercase());
        Self { public: Hosts::new(), cluster: Hosts::new(), cluster_suffix }
    }

    /// Where `host` and `path` lead, the path being as the request has it.
    ///
    /// # Errors
    ///
    /// If they lead nowhere.
    pub fn find(&self, side: Side, host: &Host<'_>, path: &str) -> Result<Route, Unrouted> {
        let host = host.as_str();
        match side {
            Side::Public => self.public.get(host, path),
            Side::Cluster => match host.strip_suffix(&self.cluster_suffix).or_else(|| host.strip_suffix(".svc")) {
                // It is the name of a Service, or else of a function in a namespace `svc`. It is nothing that somebody else
                // may have claimed as a custom host.
                Some(name) => or_host(self.cluster.get(name, path), || self.cluster.get(host, path)),
                None => or_host(self.cluster.get(host, path), || self.public.get(host, path)),
            },
        }
    }

    /// Makes `now` all that a host leads to, in the order of the paths. `former` are the paths that it had.
    pub(super) fn set(&self, side: Side, host: &str, former: &[Box<str>], now: &[(Box<str>, Route)]) {
        let hosts = match side {
            Side::Public => &self.public,
            Side::Cluster => &self.cluster,
        };
        let key = |path: &str| format!("{host}{path}");
        let below = || now.iter().filter(|(path, _)| **path != *ROOT);
        // What is longer comes first and goes last: no request is led by the host alone that a path is to lead.
        for (path, route) in below() {
            hosts.set(&key(path), Some(Entry::Whole(route.clone())));
        }
        let root = now.iter().find(|(path, _)| **path == *ROOT).map(|(_, route)| route.clone());
        hosts.set(
            host,
            match (root, below().next()) {
                (Some(route), None) => Some(Entry::Whole(route)),
                (None, None) => None,
                (root, Some(_)) => Some(Entry::Split(root)),
            },
        );
        let kept = |path: &str| now.binary_search_by(|(kept, _)| (**kept).cmp(path)).is_ok();
        for path in former.iter().filter(|path| ***path != *ROOT && !kept(path)) {
            hosts.set(&key(path), None);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        [&self.public, &self.cluster].iter().flat_map(|hosts| &hosts.parts).map(|part| part.load().len()).sum()
    }
}

/// The first, or the second if the first has not even the host.
fn or_host(
    first: Result<Route, Unrouted>,
    second: impl FnOnce() -> Result<Route, Unrouted>,
) -> Result<Route, Unrouted> {
    if matches!(first, Err(Unrouted::Host)) { second() } else { first }
}

impl Hosts {
    fn new() -> Self {
        Self { hasher: RandomState::new(), parts: (0..PARTS).map(|_| ArcSwap::default()).collect() }
    }

    fn part(&self, key: &str) -> &ArcSwap<HashMap<Arc<str>, Entry>> {
        // The remainder is smaller than the number of parts, whatever the width of a pointer.
        &self.parts[(self.hasher.hash_one(key) % PARTS as u64) as usize]
    }

    fn get(&self, host: &str, path: &str) -> Result<Route, Unrouted> {
        let root = match self.part(host).load().get(host) {
            None => return Err(Unrouted::Host),
            Some(Entry::Whole(route)) => return Ok(route.clone()),
            Some(Entry::Split(root)) => root.clone(),
        };
        let key = RefCell::new(host.to_owned());
        let look = |path: &str| {
            if path == ROOT {
                return root.clone();
            }
            let mut key = key.borrow_mut();
            key.truncate(host.len());
            key.push_str(path);
            match self.part(&key).load().get(key.as_str()) {
                Some(Entry::Whole(route)) => Some(route.clone()),
                _ => None,
            }
        };
        path::lead(path, look, Route::same).map_err(Unrouted::Ambiguous)?.ok_or(Unrouted::Path)
    }

    fn set(&self, key: &str, entry: Option<Entry>) {
        let part = self.part(key);
        let former = part.load();
        let same = match (former.get(key), &entry) {
            (Some(one), Some(other)) => one.same(other),
            (None, None) => true,
            _ => false,
        };
        if same {
            return;
        }
        let mut entries = HashMap::clone(&former);
        match entry {
            Some(entry) => entries.insert(key.into(), entry),
            None => entries.remove(key),
        };
        part.store(Arc::new(entries));
    }
}

impl Entry {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) | (Self::Split(Some(one)), Self::Split(Some(other))) => {
                one.same(other)
            }
            (Self::Split(None), Self::Split(None)) => true,
            _ => false,
        }
    }
}
