//! What is known of Functions and their pods, and what follows from it for the table and the gates.
//!
//! One task owns this and feeds it the events of both watches, so nothing in here is locked. A pod that is seen before its
//! Function, or the other way round, is remembered and joined when the other comes.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Weak},
};

use rouse_crds::{
    Function, conditions,
    function::Visibility,
    hosts::{DefaultHost, HostTemplate, claim_order},
    pod::{FunctionPod, PodFailure},
};

use super::{Host, Table};
use crate::{
    admit::{FunctionId, Gate, Namespace, Policy},
    context::Context,
    endpoints::PodFacts,
    metrics::Metrics,
};

/// Namespace and name.
type Key = (Box<str>, Box<str>);

/// Where a Function stands among those that claim a host.
type Claim = (i64, String, String);

/// What is known of Functions and their pods.
#[derive(Debug)]
pub struct Directory {
    context: Arc<Context>,
    table: Arc<Table>,
    hosts: HostTemplate,
    functions: HashMap<Key, Known>,
    /// Pods by the Function that they name, whether or not it is known.
    pods: HashMap<Key, HashMap<Box<str>, KnownPod>>,
    /// Who claims each public host; the first has it.
    claims: HashMap<Box<str>, BTreeSet<Claim>>,
    /// Those that have a Function.
    namespaces: HashMap<Box<str>, Weak<Namespace>>,
    /// What a list has shown so far, while one is under way.
    listed_functions: HashSet<Key>,
    listed_pods: HashSet<(Key, Box<str>)>,
}

#[derive(Debug)]
struct Known {
    gate: Arc<Gate>,
    claim: Claim,
    public_hosts: BTreeSet<Box<str>>,
}

#[derive(Debug)]
struct KnownPod {
    uid: Box<str>,
    facts: PodFacts,
}

impl Directory {
    /// A directory that keeps `table`.
    #[must_use]
    pub fn new(context: Arc<Context>, table: Arc<Table>, hosts: HostTemplate) -> Self {
        Self {
            context,
            table,
            hosts,
            functions: HashMap::new(),
            pods: HashMap::new(),
            claims: HashMap::new(),
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
            None => self.open(&key, uid, policy, claim_order(function)),
        };
        self.set_hosts(&key, function);
        if let Some(status) = &function.status {
            gate.set_traffic(&status.traffic);
            let refused = status.conditions.iter().find(|c| {
                c.type_ == conditions::ACTIVE && c.status == "False" && c.reason == conditions::POD_CREATION_FAILED
            });
            gate.pods_refused(refused.map(|c| PodFailure { reason: c.reason.clone(), message: c.message.clone() }));
        }
    }

    /// An object that is not a Function as this process knows it. What was known of it stands.
    pub fn function_unreadable(&mut self, namespace: &str, name: &str) {
        self.listed_functions.insert((namespace.into(), name.into()));
    }

    /// A Function is gone.
    pub fn function_gone(&mut self, namespace: &str, name: &str) {
        let key = (namespace.into(), name.into());
        let Some(known) = self.functions.remove(&key) else { return };
        self.table.set_cluster(namespace, name, None);
        for host in &known.public_hosts {
            self.give_up(host, &known.claim);
        }
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
    }

    /// A list of all Functions has ended: the others are gone.
    pub fn functions_listed(&mut self) {
        let listed = std::mem::take(&mut self.listed_functions);
        let gone: Vec<_> = self.functions.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for (namespace, name) in gone {
            self.function_gone(&namespace, &name);
        }
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

    fn open(&mut self, key: &Key, uid: &str, policy: Policy, claim: Claim) -> Arc<Gate> {
        let namespace = self.namespaces.get(&key.0).and_then(Weak::upgrade).unwrap_or_else(|| {
            let bounds = &self.context.bounds;
            let namespace = Namespace::new(bounds.namespace, bounds.namespace_wakes);
            self.namespaces.insert(key.0.clone(), Arc::downgrade(&namespace));
            namespace
        });
        let id = FunctionId { namespace: key.0.clone(), name: key.1.clone(), uid: uid.into() };
        let gate = Gate::new(id, policy, namespace, self.context.clone());
        self.table.set_cluster(&key.0, &key.1, Some(&gate));
        self.functions.insert(key.clone(), Known { gate: gate.clone(), claim, public_hosts: BTreeSet::new() });
        for pod in self.pods.get(key).into_iter().flat_map(HashMap::values).filter(|pod| *pod.uid == *uid) {
            gate.pod_seen(&pod.facts);
        }
        gate
    }

    fn set_hosts(&mut self, key: &Key, function: &Function) {
        let mut wanted: BTreeSet<Box<str>> = BTreeSet::new();
        if function.spec.visibility() == Visibility::Public {
            let own = self.hosts.host(&key.1, &key.0);
            for host in std::iter::once(&own).chain(function.spec.hosts.iter().flatten()) {
                match Host::normalise(host) {
                    // The default host of another Function is that one's, even before it exists: or else whoever claims
                    // it first would get its calls.
                    Ok(host) if matches!(self.hosts.read(host.as_str()), DefaultHost::Of(name, namespace) if (name, namespace) != (&*key.1, &*key.0)) =>
                    {
                        tracing::warn!(namespace = %key.0, function = %key.1, host = host.as_str(), "A host is another function's and is left out");
                    }
                    Ok(host) => drop(wanted.insert(host.as_str().into())),
                    Err(error) => {
                        tracing::warn!(namespace = %key.0, function = %key.1, host, %error, "A host is left out");
                    }
                }
            }
        }
        let Some(known) = self.functions.get_mut(key) else { return };
        let former = std::mem::replace(&mut known.public_hosts, wanted.clone());
        let claim = known.claim.clone();
        for host in former.difference(&wanted) {
            self.give_up(host, &claim);
        }
        for host in wanted.difference(&former) {
            self.claims.entry(host.clone()).or_default().insert(claim.clone());
            self.settle(host);
        }
    }

    fn give_up(&mut self, host: &str, claim: &Claim) {
        if let Some(claims) = self.claims.get_mut(host) {
            claims.remove(claim);
            if claims.is_empty() {
                self.claims.remove(host);
            }
        }
        self.settle(host);
    }

    /// Gives a host to the first of those that claim it.
    fn settle(&self, host: &str) {
        let first = self.claims.get(host).and_then(BTreeSet::first);
        let owner = first
            .and_then(|(_, namespace, name)| self.functions.get(&(namespace.as_str().into(), name.as_str().into())));
        self.table.set_public(host, owner.map(|known| &known.gate));
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

fn key_of(metadata: &kube::core::ObjectMeta) -> Key {
    (metadata.namespace.as_deref().unwrap_or_default().into(), metadata.name.as_deref().unwrap_or_default().into())
}

#[cfg(test)]
mod tests;
