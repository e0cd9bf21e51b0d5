//! What is known of Functions and their pods, and what follows from it for the table and the gates.
//!
//! One task owns this and feeds it the events of both watches, so nothing in here is locked. A pod that is seen before its
//! Function, or the other way round, is remembered and joined when the other comes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use rouse_crds::{
    Function, conditions,
    hosts::ownership::{self, Claim},
    pod::{FunctionPod, PodFailure},
};

use super::{Route, Rules, Side, Table, claims::Claims};
use crate::{
    admit::{Context, FunctionId, Gate, Namespace, Policy},
    endpoints::PodFacts,
    metrics::Metrics,
};

/// Namespace and name.
type Key = (Box<str>, Box<str>);

/// What is known of Functions and their pods.
#[derive(Debug)]
pub struct Directory {
    context: Arc<Context>,
    table: Arc<Table>,
    functions: HashMap<Key, Known>,
    /// Pods by the Function that they name, whether or not it is known.
    pods: HashMap<Key, HashMap<Box<str>, KnownPod>>,
    /// Who claims the public hosts.
    public: Claims,
    /// Who claims the names in the cluster.
    cluster: Claims,
    /// Those that have a Function.
    namespaces: HashMap<Box<str>, Weak<Namespace>>,
    /// What a list has shown so far, while one is under way.
    listed_functions: HashSet<Key>,
    listed_pods: HashSet<(Key, Box<str>)>,
}

#[derive(Debug)]
struct Known {
    gate: Arc<Gate>,
    /// What it claims of the public hosts and of the names in the cluster.
    public: Arc<[Arc<Claim>]>,
    cluster: Arc<[Arc<Claim>]>,
    /// What each of its routes says.
    rules: Box<[Option<Arc<Rules>>]>,
    /// Its tags and the revisions that they name.
    tags: Box<[(Box<str>, Arc<str>)]>,
}

#[derive(Debug)]
struct KnownPod {
    uid: Box<str>,
    facts: PodFacts,
}

impl Directory {
    /// A directory that keeps `table` by these rules.
    #[must_use]
    pub fn new(context: Arc<Context>, table: Arc<Table>, rules: ownership::Rules) -> Self {
        Self {
            context,
            table,
            functions: HashMap::new(),
            pods: HashMap::new(),
            public: Claims::new(Side::Public, rules.clone()),
            cluster: Claims::new(Side::Cluster, rules),
            namespaces: HashMap::new(),
            listed_functions: HashSet::new(),
            listed_pods: HashSet::new(),
        }
    }

    /// Where defects are counted.
    pub(super) fn metrics(&self) -> Arc<Metrics> {
        self.context.metrics.clone()
    }

    /// A Function is there, or has changed.
    pub fn function_seen(&mut self, function: &Function) {
        let key = key_of(&function.metadata);
        self.listed_functions.insert(key.clone());
        let uid = function.metadata.uid.as_deref().unwrap_or_default();
        if self.functions.get(&key).is_some_and(|known| *known.gate.id().uid != *uid) {
            // Deleted and made again, and the deletion was not seen.
            self.function_gone(&key.0, &key.1);
        }
        let policy = Policy::from(&function.spec);
        let gate = match self.functions.get(&key) {
            Some(known) => {
                known.gate.set_policy(policy);
                known.gate.clone()
            }
            None => self.open(&key, uid, policy),
        };
        if let Some(status) = &function.status {
            gate.set_traffic(&status.traffic);
            let refused = status.conditions.iter().find(|c| {
                c.type_ == conditions::ACTIVE && c.status == "False" && c.reason == conditions::POD_CREATION_FAILED
            });
            gate.pods_refused(refused.map(|c| PodFailure { reason: c.reason.clone(), message: c.message.clone() }));
        }
        // Then, so that a tag leads to a revision that is known.
        self.set_routes(&key, function);
    }

    /// An object that is not a Function as this process knows it. What was known of it stands.
    pub fn function_unreadable(&mut self, namespace: &str, name: &str) {
        self.listed_functions.insert((namespace.into(), name.into()));
    }

    /// A Function is gone.
    pub fn function_gone(&mut self, namespace: &str, name: &str) {
        let key = (namespace.into(), name.into());
        let Some(known) = self.functions.remove(&key) else { return };
        self.claim(&known, &[], &[]);
        known.gate.close();
        self.namespaces.retain(|_, namespace| namespace.strong_count() > 0);
    }

    /// A pod is there, or has changed.
    pub fn pod_seen(&mut self, pod: &FunctionPod) {
        let (Some(function), Some(uid), Some(revision)) = (pod.function(), pod.function_uid(), pod.revision()) else {
            return;
        };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name: Box<str> = pod.metadata.name.as_deref().unwrap_or_default().into();
        let key: Key = (namespace.into(), function.into());
        self.listed_pods.insert((key.clone(), name.clone()));
        let facts = PodFacts::of(pod, revision);
        if let Some(known) = self.functions.get(&key).filter(|known| *known.gate.id().uid == *uid) {
            known.gate.pod_seen(&facts);
        }
        let former =
            self.pods.entry(key.clone()).or_default().insert(name, KnownPod { uid: uid.into(), facts: facts.clone() });
        if let Some(former) = former.filter(|former| former.facts.id != facts.id) {
            self.part(&key, &former);
        }
    }

    /// A pod is gone.
    pub fn pod_gone(&mut self, pod: &FunctionPod) {
        let Some(function) = pod.function() else { return };
        let key: Key = (pod.metadata.namespace.as_deref().unwrap_or_default().into(), function.into());
        self.remove_pod(&key, pod.metadata.name.as_deref().unwrap_or_default());
    }

    /// A list of all Functions begins.
    pub fn functions_listing(&mut self) {
        self.listed_functions.clear();
        if self.functions.is_empty() {
            // Nothing is led anywhere yet, so it may as well be at the end.
            self.public.defer();
            self.cluster.defer();
        }
    }

    /// A list of all Functions has ended: the others are gone.
    pub fn functions_listed(&mut self) {
        let listed = std::mem::take(&mut self.listed_functions);
        let gone: Vec<_> = self.functions.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for (namespace, name) in gone {
            self.function_gone(&namespace, &name);
        }
        let Self { functions, table, .. } = self;
        self.public.settle_pending(table, |claim| route_of(functions, claim));
        self.cluster.settle_pending(table, |claim| route_of(functions, claim));
    }

    /// A list of all pods begins.
    pub fn pods_listing(&mut self) {
        self.listed_pods.clear();
    }

    /// A list of all pods has ended: the others are gone.
    pub fn pods_listed(&mut self) {
        let listed = std::mem::take(&mut self.listed_pods);
        let all = self.pods.iter().flat_map(|(key, pods)| pods.keys().map(move |name| (key.clone(), name.clone())));
        let gone: Vec<_> = all.filter(|pod| !listed.contains(pod)).collect();
        for (key, name) in gone {
            self.remove_pod(&key, &name);
        }
    }

    fn open(&mut self, key: &Key, uid: &str, policy: Policy) -> Arc<Gate> {
        let namespace = self.namespaces.get(&key.0).and_then(Weak::upgrade).unwrap_or_else(|| {
            let bounds = &self.context.bounds;
            let namespace = Namespace::new(bounds.namespace, bounds.namespace_wakes);
            self.namespaces.insert(key.0.clone(), Arc::downgrade(&namespace));
            namespace
        });
        let id = FunctionId { namespace: key.0.clone(), name: key.1.clone(), uid: uid.into() };
        let gate = Gate::new(id, policy, namespace, self.context.clone());
        self.functions.insert(key.clone(), Known::new(gate.clone()));
        for pod in self.pods.get(key).into_iter().flat_map(HashMap::values).filter(|pod| *pod.uid == *uid) {
            gate.pod_seen(&pod.facts);
        }
        gate
    }

    /// Puts what a Function says of hosts, paths and tags into the table, if it says something new.
    fn set_routes(&mut self, key: &Key, function: &Function) {
        let (public, cluster) = (self.public.of(function), self.cluster.of(function));
        let Some(known) = self.functions.get_mut(key) else { return };
        let rules: Box<[_]> = function.spec.routes.iter().flatten().map(|r| Rules::new(r).map(Arc::new)).collect();
        let status = function.status.iter().flat_map(|status| &status.traffic);
        let tags: Box<[_]> =
            status.filter_map(|t| Some((t.tag.as_deref()?.into(), t.revision.as_str().into()))).collect();
        if *known.public == *public && *known.cluster == *cluster && known.rules == rules && known.tags == tags {
            return;
        }
        let former = Known {
            gate: known.gate.clone(),
            public: std::mem::replace(&mut known.public, public.into()),
            cluster: std::mem::replace(&mut known.cluster, cluster.into()),
            rules: std::mem::replace(&mut known.rules, rules),
            tags: std::mem::replace(&mut known.tags, tags),
        };
        let (public, cluster) = (known.public.clone(), known.cluster.clone());
        self.claim(&former, &public, &cluster);
    }

    /// Puts claims in place of those that a Function had.
    fn claim(&mut self, former: &Known, public: &[Arc<Claim>], cluster: &[Arc<Claim>]) {
        let Self { functions, table, .. } = self;
        self.public.change(table, &former.public, public, |claim| route_of(functions, claim));
        self.cluster.change(table, &former.cluster, cluster, |claim| route_of(functions, claim));
    }

    fn remove_pod(&mut self, key: &Key, name: &str) {
        let Some(pods) = self.pods.get_mut(key) else { return };
        let Some(pod) = pods.remove(name) else { return };
        if pods.is_empty() {
            self.pods.remove(key);
        }
        self.part(key, &pod);
    }

    /// Takes a pod from its gate.
    fn part(&self, key: &Key, pod: &KnownPod) {
        if let Some(known) = self.functions.get(key).filter(|known| *known.gate.id().uid == *pod.uid) {
            known.gate.pod_gone(&pod.facts.revision, &pod.facts.id);
        }
    }
}

impl Known {
    /// A Function of which no more is known.
    fn new(gate: Arc<Gate>) -> Self {
        Self { gate, public: [].into(), cluster: [].into(), rules: [].into(), tags: [].into() }
    }

    /// Where a claim of it leads; nowhere if it is of a tag that no revision has yet.
    fn route(&self, claim: &Claim) -> Option<Route> {
        let revision = match &claim.tag {
            Some(tag) => Some(self.tags.iter().find(|(known, _)| known == tag)?.1.clone()),
            None => None,
        };
        let rules = claim.route.and_then(|index| self.rules.get(index)?.clone());
        Some(Route { gate: self.gate.clone(), revision, rules })
    }
}

fn route_of(functions: &HashMap<Key, Known>, claim: &Claim) -> Option<Route> {
    let claimant = &claim.claimant;
    functions.get(&(claimant.namespace.clone(), claimant.name.clone()))?.route(claim)
}

fn key_of(metadata: &kube::core::ObjectMeta) -> Key {
    (metadata.namespace.as_deref().unwrap_or_default().into(), metadata.name.as_deref().unwrap_or_default().into())
}

#[cfg(test)]
mod tests;
