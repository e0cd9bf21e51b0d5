//! Routing table of hosts and paths.
//!
//! A request reads it without a lock. It is sharded, so that a change copies one small shard, however many hosts there
//! are and however many paths a host has: a path of a host is an entry of its own, keyed by both.

use std::{cell::RefCell, collections::HashMap, hash::BuildHasher, sync::Arc};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::{
    Host, RouteRules,
    path::{self, Ambiguous, ROOT},
};
use crate::admit::Breaker;

/// The side of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The ingress: only public functions, by their public hosts.
    Public,
    /// Inside the cluster: every function by its cluster names, and public ones by their public hosts too.
    Cluster,
}

/// The route of a host and a path.
#[derive(Clone, Debug)]
pub struct Route {
    /// The breaker of the Function.
    pub breaker: Arc<Breaker>,
    /// The revision, if the host is of a tag; otherwise by traffic percentage.
    pub revision: Option<Arc<str>>,
    /// The rules of the route, if it has any.
    pub rules: Option<Arc<RouteRules>>,
}

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// No Function has the host.
    Host,
    /// No Function has the path on this host.
    Path,
    /// Different normalisations of the path match different routes.
    Ambiguous(Ambiguous),
}

/// Routing table of hosts and paths.
#[derive(Debug)]
pub struct Table {
    public: Hosts,
    /// By `name.namespace`.
    cluster: Hosts,
    /// `.svc.` and the cluster domain.
    cluster_suffix: String,
}

#[derive(Debug)]
struct Hosts {
    /// Fast and not collision-resistant: only Functions add keys, and a request only looks them up.
    hasher: RandomState,
    /// By host, and by host and path where paths of a host lead to different routes.
    shards: Vec<ArcSwap<Shard>>,
}

type Shard = HashMap<Arc<str>, Entry, RandomState>;

#[derive(Clone, Debug)]
enum Entry {
    /// The route of the key.
    Whole(Route),
    /// A host whose paths have to be looked up; the route is for all other paths.
    Split(Option<Route>),
}

/// With ten thousand hosts a shard has about forty entries.
const SHARDS: usize = 256;

impl Route {
    /// Whether both lead to the same revision by the same rules.
    pub(super) fn same(&self, other: &Self) -> bool {
        let rules = match (&self.rules, &other.rules) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
            (None, None) => true,
            _ => false,
        };
        Arc::ptr_eq(&self.breaker, &other.breaker) && self.revision == other.revision && rules
    }
}

impl Table {
    /// Creates an empty table for a cluster of this domain.
    #[must_use]
    pub fn new(cluster_domain: &str) -> Self {
        let cluster_suffix = format!(".svc.{}", cluster_domain.trim_end_matches('.').to_ascii_lowercase());
        Self { public: Hosts::new(), cluster: Hosts::new(), cluster_suffix }
    }

    /// Looks up the route of `host` and `path`; the path is as the request has it.
    ///
    /// # Errors
    ///
    /// If there is no route.
    pub fn find(&self, side: Side, host: &Host<'_>, path: &str) -> Result<Route, RouteError> {
        let host = host.as_str();
        match side {
            Side::Public => self.public.get(host, path),
            Side::Cluster => match host.strip_suffix(&self.cluster_suffix).or_else(|| host.strip_suffix(".svc")) {
                // It is the name of a Service, or of a function in a namespace `svc`. Nobody else can have claimed it
                // as a custom host.
                Some(name) => or_host(self.cluster.get(name, path), || self.cluster.get(host, path)),
                None => or_host(self.cluster.get(host, path), || self.public.get(host, path)),
            },
        }
    }

    /// Sets all routes of a host, sorted by path. `previous` are the paths that it had.
    pub(super) fn set(&self, side: Side, host: &str, previous: &[Box<str>], now: &[(Box<str>, Route)]) {
        let hosts = match side {
            Side::Public => &self.public,
            Side::Cluster => &self.cluster,
        };
        let key = |path: &str| format!("{host}{path}");
        let below = || now.iter().filter(|(path, _)| **path != *ROOT);
        // Longer paths are added first and removed last: no request that a path matches is routed by the host alone in
        // between.
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
        for path in previous.iter().filter(|path| ***path != *ROOT && !kept(path)) {
            hosts.set(&key(path), None);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        [&self.public, &self.cluster].iter().flat_map(|hosts| &hosts.shards).map(|shard| shard.load().len()).sum()
    }
}

/// Returns the first result, or the second if the first has no such host.
fn or_host(
    first: Result<Route, RouteError>,
    second: impl FnOnce() -> Result<Route, RouteError>,
) -> Result<Route, RouteError> {
    if matches!(first, Err(RouteError::Host)) { second() } else { first }
}

impl Hosts {
    fn new() -> Self {
        Self { hasher: RandomState::default(), shards: (0..SHARDS).map(|_| ArcSwap::default()).collect() }
    }

    fn shard(&self, key: &str) -> &ArcSwap<Shard> {
        // The remainder is smaller than the number of shards, whatever the width of a pointer.
        &self.shards[(self.hasher.hash_one(key) % SHARDS as u64) as usize]
    }

    fn get(&self, host: &str, path: &str) -> Result<Route, RouteError> {
        let root = match self.shard(host).load().get(host) {
            None => return Err(RouteError::Host),
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
            match self.shard(&key).load().get(key.as_str()) {
                Some(Entry::Whole(route)) => Some(route.clone()),
                _ => None,
            }
        };
        path::find_longest(path, look, Route::same).map_err(RouteError::Ambiguous)?.ok_or(RouteError::Path)
    }

    fn set(&self, key: &str, entry: Option<Entry>) {
        let shard = self.shard(key);
        let previous = shard.load();
        let same = match (previous.get(key), &entry) {
            (Some(one), Some(other)) => one.same(other),
            (None, None) => true,
            _ => false,
        };
        if same {
            return;
        }
        let mut entries = HashMap::clone(&previous);
        match entry {
            Some(entry) => entries.insert(key.into(), entry),
            None => entries.remove(key),
        };
        shard.store(Arc::new(entries));
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
