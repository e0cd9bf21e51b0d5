//! What both flows know of a Function's workloads: its Deployments and pods ([`Workloads`]), the state of its revisions
//! ([`observe`]) and the results of their requests ([`outcomes`]).

pub mod max_reached;
pub mod observe;
pub mod outcomes;
pub mod pods;

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt as _;
use rouse_crds::{names::revision_number, pod::FunctionPod};

use crate::cluster::{
    cache::{Cache, Cached},
    caches::Caches,
    children::{DeploymentObject, owned_by},
    key::FunctionKey,
};

/// Deployments and pods of one Function that are not being deleted.
#[derive(Debug, Default)]
pub struct Workloads {
    /// Deployments of its revisions, by name.
    pub deployments: BTreeMap<String, Arc<DeploymentObject>>,
    /// Its pods.
    pub pods: Vec<Arc<FunctionPod>>,
}

impl Workloads {
    /// Returns the newest revision that has a Deployment.
    #[must_use]
    pub fn newest(&self) -> Option<&str> {
        self.deployments.keys().map(String::as_str).max_by_key(|name| revision_number(name))
    }

    /// Reads the workloads of the Function with this `uid` from the caches. Passes every other Deployment that is filed
    /// under its name to `other`. A pod that only has the labels of the Function is ignored, as activators ignore it.
    pub fn of(caches: &Caches, key: &FunctionKey, uid: &str, other: impl FnMut(&DeploymentObject)) -> Self {
        let mut pods = caches.pods.of(key);
        pods.retain(|pod| {
            pod.function_uid() == Some(uid) && pod.is_of_its_revision() && pod.metadata.deletion_timestamp.is_none()
        });
        Self { deployments: owned(&caches.deployments, key, uid, other), pods }
    }
}

/// Objects of one kind that the Function with this `uid` controls, by name. Ignores objects that are being deleted, and
/// passes those with another owner to `other`.
pub fn owned<K: Cached>(
    cache: &Cache<K>,
    key: &FunctionKey,
    uid: &str,
    mut other: impl FnMut(&K),
) -> BTreeMap<String, Arc<K>> {
    let mut owned = BTreeMap::new();
    for object in cache.of(key) {
        if object.meta().deletion_timestamp.is_some() {
            continue;
        }
        if owned_by(object.meta(), uid) {
            owned.insert(object.name_any(), object);
        } else {
            other(&object);
        }
    }
    owned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_revision_has_the_highest_number() {
        let mut workloads = Workloads::default();
        for name in ["hello-99998", "hello-100000", "hello-99999"] {
            workloads.deployments.insert(name.into(), Arc::default());
        }
        assert_eq!(workloads.newest(), Some("hello-100000"));
    }
}
