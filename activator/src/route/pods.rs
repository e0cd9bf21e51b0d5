//! Pods as the watch reports them: by name, by Function and by address. Pure.
//!
//! A pod is filed under its own name, so that a change of its labels moves it: it leaves the revision that it was in. Its
//! address is its own only while no newer pod has the same one. The watch may report the end of a pod later than the
//! start of the pod that was given its address.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    net::SocketAddr,
};

use rouse_crds::pod::FunctionPod;

use crate::{endpoints::PodFacts, function_id::FunctionKey};

/// Namespace and name of a pod.
type PodName = (Box<str>, Box<str>);

/// All pods with the label of a Function. Bounded by what the cluster runs.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_name: HashMap<PodName, Pod>,
    /// Whether or not the Function exists.
    by_function: HashMap<FunctionKey, HashSet<PodName>>,
    /// Pods with the same address, in the order in which they were reported with it.
    by_address: HashMap<SocketAddr, Vec<PodName>>,
    /// Pods that the current relist has returned so far.
    listed: HashSet<PodName>,
}

/// The revision that a pod is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Membership {
    /// The Function that the labels of the pod name.
    pub(super) function: FunctionKey,
    /// The `uid` of that Function.
    pub(super) uid: Box<str>,
    /// Name of the revision.
    pub(super) revision: Box<str>,
    /// Name and uid of the pod.
    pub(super) id: Box<str>,
}

#[derive(Debug)]
struct Pod {
    membership: Membership,
    /// Creation time in seconds.
    created: Option<i64>,
    facts: PodFacts,
}

/// A change for the breaker of a Function.
#[derive(Debug)]
pub(super) enum PodChange {
    /// The pod has left its revision.
    Removed(Membership),
    /// The pod is new or has changed.
    Updated {
        /// The Function that the labels of the pod name.
        function: FunctionKey,
        /// The `uid` of that Function.
        uid: Box<str>,
        /// State of the pod. Without an address while that belongs to another pod.
        facts: PodFacts,
    },
}

impl Pod {
    /// Reads an object; `None` if it is not of a revision.
    fn of(object: &FunctionPod) -> Option<Self> {
        let (function, uid, revision) = (object.function()?, object.function_uid()?, object.revision()?);
        if !object.is_of_its_revision() {
            return None;
        }
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let facts = PodFacts::of(object, revision);
        let membership = Membership {
            function: FunctionKey::new(namespace, function),
            uid: uid.into(),
            revision: revision.into(),
            id: facts.id.clone(),
        };
        let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
        Some(Self { membership, created, facts })
    }

    /// Returns the key of its address among all pods. A pod that gets no new requests needs none. Pods of tests share
    /// loopback addresses, and are distinguished by their port.
    fn address(&self) -> Option<SocketAddr> {
        let ip = self.facts.ip.filter(|_| !self.facts.draining)?.to_canonical();
        let port = if ip.is_loopback() { self.facts.port.unwrap_or_default() } else { 0 };
        Some((ip, port).into())
    }
}

impl Pods {
    /// Handles a pod that was created or has changed.
    pub(super) fn update(&mut self, object: &FunctionPod) -> Vec<PodChange> {
        let name = name_of(object.metadata.namespace.as_deref(), object.metadata.name.as_deref());
        self.listed.insert(name.clone());
        self.replace(&name, Pod::of(object))
    }

    /// Handles an object that does not deserialize as a pod. Its previous state stays.
    pub(super) fn unreadable(&mut self, namespace: Option<&str>, name: Option<&str>) {
        self.listed.insert(name_of(namespace, name));
    }

    /// Handles a pod that was deleted.
    pub(super) fn delete(&mut self, namespace: Option<&str>, name: Option<&str>) -> Vec<PodChange> {
        self.replace(&name_of(namespace, name), None)
    }

    /// Handles the start of a relist.
    pub(super) fn relist_started(&mut self) {
        self.listed.clear();
    }

    /// Handles the end of a relist: pods that it did not return are deleted.
    pub(super) fn relist_finished(&mut self) -> Vec<PodChange> {
        let listed = std::mem::take(&mut self.listed);
        let gone: Vec<_> = self.by_name.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        gone.iter().flat_map(|name| self.replace(name, None)).collect()
    }

    /// Returns the pods of the Function with this `uid`.
    pub(super) fn of(&self, key: &FunctionKey, uid: &str) -> impl Iterator<Item = PodFacts> {
        let names = self.by_function.get(key).into_iter().flatten();
        names.filter_map(move |name| {
            let pod = self.by_name.get(name).filter(|pod| *pod.membership.uid == *uid)?;
            Some(self.facts(name, pod))
        })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.by_function.is_empty() && self.by_address.is_empty()
    }

    /// Replaces what is known of a pod, and returns the changes of this pod and of those that share its addresses.
    fn replace(&mut self, name: &PodName, pod: Option<Pod>) -> Vec<PodChange> {
        let from = self.by_name.get(name).and_then(Pod::address);
        let to = pod.as_ref().and_then(Pod::address);
        let addresses: HashSet<_> = from.into_iter().chain(to).collect();
        let owners = |pods: &Self| -> Vec<_> { addresses.iter().map(|a| pods.owner(*a).cloned()).collect() };
        let before = owners(self);
        let previous = self.by_name.remove(name);
        if let Some(previous) = &previous {
            remove(&mut self.by_function, &previous.membership.function, |names| names.remove(name), HashSet::is_empty);
        }
        if from != to {
            if let Some(from) = from {
                remove(&mut self.by_address, &from, |names| names.retain(|other| other != name), Vec::is_empty);
            }
            if let Some(to) = to {
                self.by_address.entry(to).or_default().push(name.clone());
            }
        }
        let membership = pod.as_ref().map(|pod| pod.membership.clone());
        let left = previous.map(|pod| pod.membership).filter(|previous| Some(previous) != membership.as_ref());
        if let Some(pod) = pod {
            self.by_function.entry(pod.membership.function.clone()).or_default().insert(name.clone());
            self.by_name.insert(name.clone(), pod);
        }
        let after = owners(self);
        let moved = || before.iter().zip(&after).filter(|(before, after)| before != after);
        // A pod that has lost its address changes before the pod that has it now.
        let mut touched: Vec<&PodName> = vec![];
        for name in moved()
            .filter_map(|(before, _)| before.as_ref())
            .chain([name])
            .chain(moved().filter_map(|(_, after)| after.as_ref()))
        {
            if !touched.contains(&name) {
                touched.push(name);
            }
        }
        let updated = touched.into_iter().filter_map(|name| {
            let pod = self.by_name.get(name)?;
            let (Membership { function, uid, .. }, facts) = (pod.membership.clone(), self.facts(name, pod));
            if facts.ip != pod.facts.ip {
                let (namespace, pod) = name;
                tracing::warn!(%namespace, %pod, "Address of the pod belongs to a newer pod; sending it no requests");
            }
            Some(PodChange::Updated { function, uid, facts })
        });
        left.map(PodChange::Removed).into_iter().chain(updated).collect()
    }

    /// Returns the pod that an address belongs to: the newest one, and of those the one that was reported with it last.
    fn owner(&self, address: SocketAddr) -> Option<&PodName> {
        self.by_address.get(&address)?.iter().max_by_key(|name| self.by_name.get(*name).and_then(|pod| pod.created))
    }

    /// Returns the state of a pod, without the address if that belongs to another pod.
    fn facts(&self, name: &PodName, pod: &Pod) -> PodFacts {
        let mut facts = pod.facts.clone();
        if let Some(address) = pod.address()
            && self.owner(address).is_some_and(|owner| owner != name)
        {
            facts.ip = None;
        }
        facts
    }
}

fn name_of(namespace: Option<&str>, name: Option<&str>) -> PodName {
    (namespace.unwrap_or_default().into(), name.unwrap_or_default().into())
}

/// Changes the value of a key, and removes it if it is empty then.
fn remove<K: Eq + Hash, V, R>(
    map: &mut HashMap<K, V>,
    key: &K,
    change: impl FnOnce(&mut V) -> R,
    is_empty: impl FnOnce(&V) -> bool,
) {
    if let Some(value) = map.get_mut(key) {
        change(value);
        if is_empty(value) {
            map.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
