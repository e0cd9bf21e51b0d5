//! Directory of Functions and their pods; updates the routing table and the breakers from watch events.
//!
//! One task owns it and applies the events of both watches, so it has no locks. A pod that is seen before its Function,
//! or the other way round, is kept and joined when the other one appears.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use kube::core::ObjectMeta;
use rouse_crds::{
    Function, conditions,
    hosts::ownership::{self, Claim},
    pod::{FunctionPod, PodFailure},
};

use super::{
    Route, RouteRules, Side, Table,
    claims::Claims,
    pods::{Membership, PodChange, Pods},
};
use crate::{
    admit::{Breaker, Context, Namespace, Policy},
    endpoints::WatchAge,
    function_id::{FunctionId, FunctionKey},
    metrics::Metrics,
};

/// Functions and their pods, as the watches report them.
#[derive(Debug)]
pub struct Directory {
    context: Arc<Context>,
    table: Arc<Table>,
    functions: HashMap<FunctionKey, FunctionEntry>,
    pods: Pods,
    /// Claims to public hosts.
    public: Claims,
    /// Claims to names inside the cluster.
    cluster: Claims,
    /// Namespaces that have a Function.
    namespaces: HashMap<Box<str>, Weak<Namespace>>,
    /// Functions that the current relist has returned so far.
    listed_functions: HashSet<FunctionKey>,
}

#[derive(Debug)]
struct FunctionEntry {
    breaker: Arc<Breaker>,
    /// Its claims to public hosts and to names inside the cluster.
    public: Arc<[Arc<Claim>]>,
    cluster: Arc<[Arc<Claim>]>,
    /// The rules of each of its routes.
    rules: Box<[Option<Arc<RouteRules>>]>,
    /// Its tags and the revisions that they point to.
    tags: Box<[(Box<str>, Arc<str>)]>,
}

impl Directory {
    /// Creates a directory that updates `table` by these ownership rules.
    #[must_use]
    pub fn new(context: Arc<Context>, table: Arc<Table>, rules: ownership::Rules) -> Self {
        Self {
            context,
            table,
            functions: HashMap::new(),
            pods: Pods::default(),
            public: Claims::new(Side::Public, rules.clone()),
            cluster: Claims::new(Side::Cluster, rules),
            namespaces: HashMap::new(),
            listed_functions: HashSet::new(),
        }
    }

    /// Returns the metrics.
    pub(super) fn metrics(&self) -> Arc<Metrics> {
        self.context.metrics.clone()
    }

    /// Returns the age of the watch of pods, which that watch keeps up to date.
    pub(super) fn pods_watch(&self) -> Arc<WatchAge> {
        self.context.prober.pods_watch().clone()
    }

    /// Handles a Function that was created or has changed.
    pub fn function_updated(&mut self, function: &Function) {
        let key = key_of(&function.metadata);
        self.listed_functions.insert(key.clone());
        let uid = function.metadata.uid.as_deref().unwrap_or_default();
        if self.functions.get(&key).is_some_and(|entry| *entry.breaker.id().uid != *uid) {
            // It was recreated, and the watch missed the deletion.
            self.function_deleted(&key.namespace, &key.name);
        }
        let policy = Policy::from(&function.spec);
        let breaker = match self.functions.get(&key) {
            Some(entry) => {
                entry.breaker.set_policy(policy);
                entry.breaker.clone()
            }
            None => self.open(&key, uid, policy),
        };
        breaker.set_build_failure(build_failure(function));
        if let Some(status) = &function.status {
            breaker.set_traffic(&status.traffic);
            let refused = status.conditions.iter().find(|c| {
                c.type_ == conditions::ACTIVE && c.status == "False" && c.reason == conditions::POD_CREATION_FAILED
            });
            breaker.set_pod_creation_failure(
                refused.map(|c| PodFailure { reason: c.reason.clone(), message: c.message.clone() }),
            );
        }
        // After the traffic, so that a tag points to a known revision.
        self.set_routes(&key, function);
    }

    /// Handles an object that does not deserialize as a Function. Its previous state stays.
    pub fn function_unreadable(&mut self, namespace: &str, name: &str) {
        self.listed_functions.insert(FunctionKey::new(namespace, name));
    }

    /// Handles a Function that was deleted.
    pub fn function_deleted(&mut self, namespace: &str, name: &str) {
        let key = FunctionKey::new(namespace, name);
        let Some(entry) = self.functions.remove(&key) else { return };
        self.claim(&entry, &[], &[]);
        entry.breaker.close();
        self.namespaces.retain(|_, namespace| namespace.strong_count() > 0);
    }

    /// Handles a pod that was created or has changed.
    pub fn pod_updated(&mut self, pod: &FunctionPod) {
        let changes = self.pods.update(pod);
        self.apply(changes);
    }

    /// Handles an object that does not deserialize as a pod. Its previous state stays.
    pub fn pod_unreadable(&mut self, metadata: &ObjectMeta) {
        self.pods.unreadable(metadata.namespace.as_deref(), metadata.name.as_deref());
    }

    /// Handles a pod that was deleted.
    pub fn pod_deleted(&mut self, metadata: &ObjectMeta) {
        let changes = self.pods.delete(metadata.namespace.as_deref(), metadata.name.as_deref());
        self.apply(changes);
    }

    /// Handles the start of a relist of all Functions.
    pub fn functions_relist_started(&mut self) {
        self.listed_functions.clear();
        if self.functions.is_empty() {
            // There are no routes yet, so they may as well be added at the end.
            self.public.defer();
            self.cluster.defer();
        }
    }

    /// Handles the end of a relist: Functions that it did not return are deleted.
    pub fn functions_relist_finished(&mut self) {
        let listed = std::mem::take(&mut self.listed_functions);
        let gone: Vec<_> = self.functions.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.function_deleted(&key.namespace, &key.name);
        }
        let Self { functions, table, .. } = self;
        self.public.settle_pending(table, |claim| route_of(functions, claim));
        self.cluster.settle_pending(table, |claim| route_of(functions, claim));
    }

    /// Handles the start of a relist of all pods.
    pub fn pods_relist_started(&mut self) {
        self.pods.relist_started();
    }

    /// Handles the end of a relist: pods that it did not return are deleted.
    pub fn pods_relist_finished(&mut self) {
        let changes = self.pods.relist_finished();
        self.apply(changes);
    }

    fn open(&mut self, key: &FunctionKey, uid: &str, policy: Policy) -> Arc<Breaker> {
        let namespace = self.namespaces.get(&key.namespace).and_then(Weak::upgrade).unwrap_or_else(|| {
            let bounds = &self.context.bounds;
            let namespace = Namespace::new(bounds.namespace, bounds.namespace_wakes);
            self.namespaces.insert(key.namespace.clone(), Arc::downgrade(&namespace));
            namespace
        });
        let id = FunctionId { key: key.clone(), uid: uid.into() };
        let breaker = Breaker::new(id, policy, namespace, self.context.clone());
        self.functions.insert(key.clone(), FunctionEntry::new(breaker.clone()));
        for facts in self.pods.of(key, uid) {
            breaker.pod_updated(&facts);
        }
        breaker
    }

    /// Updates hosts, paths and tags of a Function in the routing table, if they have changed.
    fn set_routes(&mut self, key: &FunctionKey, function: &Function) {
        let (public, cluster) = (self.public.of(function), self.cluster.of(function));
        let Some(entry) = self.functions.get_mut(key) else { return };
        let rules: Box<[_]> = function.spec.routes.iter().flatten().map(|r| RouteRules::new(r).map(Arc::new)).collect();
        let status = function.status.iter().flat_map(|status| &status.traffic);
        let tags: Box<[_]> =
            status.filter_map(|t| Some((t.tag.as_deref()?.into(), t.revision.as_str().into()))).collect();
        if *entry.public == *public && *entry.cluster == *cluster && entry.rules == rules && entry.tags == tags {
            return;
        }
        let previous = FunctionEntry {
            breaker: entry.breaker.clone(),
            public: std::mem::replace(&mut entry.public, public.into()),
            cluster: std::mem::replace(&mut entry.cluster, cluster.into()),
            rules: std::mem::replace(&mut entry.rules, rules),
            tags: std::mem::replace(&mut entry.tags, tags),
        };
        let (public, cluster) = (entry.public.clone(), entry.cluster.clone());
        self.claim(&previous, &public, &cluster);
    }

    /// Replaces the claims of a Function.
    fn claim(&mut self, previous: &FunctionEntry, public: &[Arc<Claim>], cluster: &[Arc<Claim>]) {
        let Self { functions, table, .. } = self;
        self.public.change(table, &previous.public, public, |claim| route_of(functions, claim));
        self.cluster.change(table, &previous.cluster, cluster, |claim| route_of(functions, claim));
    }

    /// Applies changes of pods to the breakers of their Functions, as far as those exist.
    fn apply(&self, changes: Vec<PodChange>) {
        let breaker = |key: &FunctionKey, uid: &str| {
            self.functions.get(key).map(|entry| &entry.breaker).filter(|breaker| *breaker.id().uid == *uid)
        };
        for change in changes {
            match change {
                PodChange::Removed(Membership { function, uid, revision, id }) => {
                    if let Some(breaker) = breaker(&function, &uid) {
                        breaker.pod_deleted(&revision, &id);
                    }
                }
                PodChange::Updated { function, uid, facts } => {
                    if let Some(breaker) = breaker(&function, &uid) {
                        breaker.pod_updated(&facts);
                    }
                }
            }
        }
    }
}

impl FunctionEntry {
    /// Creates an entry without hosts and routes.
    fn new(breaker: Arc<Breaker>) -> Self {
        Self { breaker, public: [].into(), cluster: [].into(), rules: [].into(), tags: [].into() }
    }

    /// Returns where a claim leads; nowhere if it is for a tag that has no revision yet.
    fn route(&self, claim: &Claim) -> Option<Route> {
        let revision = match &claim.tag {
            Some(tag) => Some(self.tags.iter().find(|(name, _)| name == tag)?.1.clone()),
            None => None,
        };
        let rules = claim.route.and_then(|index| self.rules.get(index)?.clone());
        Some(Route { breaker: self.breaker.clone(), revision, rules })
    }
}

/// Returns why the Function has no revision with traffic, if the operator has reported it about the present spec.
fn build_failure(function: &Function) -> Option<PodFailure> {
    let status = function.status.as_ref().filter(|status| status.traffic.is_empty())?;
    let revision = status.conditions.iter().find(|c| c.type_ == conditions::REVISION_READY && c.status == "False")?;
    let current = revision.observed_generation == function.metadata.generation;
    let cannot_be_built = [conditions::INVALID, conditions::NAME_CONFLICT].contains(&revision.reason.as_str());
    (current && cannot_be_built)
        .then(|| PodFailure { reason: revision.reason.clone(), message: revision.message.clone() })
}

fn route_of(functions: &HashMap<FunctionKey, FunctionEntry>, claim: &Claim) -> Option<Route> {
    functions.get(&FunctionKey::from(&claim.claimant))?.route(claim)
}

fn key_of(metadata: &ObjectMeta) -> FunctionKey {
    FunctionKey::new(metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests;
