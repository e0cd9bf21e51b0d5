//! Step one: everything that a Function refers to and owns, as the caches have it.

pub mod config;

use std::{collections::BTreeMap, sync::Arc};

use kube::{Resource, ResourceExt as _};
use rouse_crds::{Function, function::OnConfigChange, pod::FunctionPod};

use super::Context;
use crate::{
    cluster::{
        cache::{Cache, Cached},
        children::{DeploymentObject, RevisionObject, ServiceObject, controller, owned_by},
        config_versions::Reference,
        key::FunctionKey,
    },
    hosts::LostHost,
};
use config::Config;

/// What belongs to one Function.
#[derive(Debug, Default)]
pub struct Found {
    /// Its revisions, by name.
    pub revisions: BTreeMap<String, Arc<RevisionObject>>,
    /// Their Deployments, by name.
    pub deployments: BTreeMap<String, Arc<DeploymentObject>>,
    /// Its Service.
    pub service: Option<Arc<ServiceObject>>,
    /// Its pods that are not being deleted.
    pub pods: Vec<Arc<FunctionPod>>,
    /// What a former Function of the same name has left behind.
    pub leftovers: Vec<Removal>,
    /// Hosts that it claims and another has.
    pub lost_hosts: Vec<LostHost>,
    /// ConfigMaps and Secrets that it takes something from.
    pub config: Config,
}

/// Kinds of objects that are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A revision.
    ControllerRevision,
    /// The Deployment of one.
    Deployment,
    /// The Service.
    Service,
}

/// An object that is to go, as it was seen: another one of the same name, or a changed one, stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Its kind.
    pub kind: Kind,
    /// Its name; its namespace is the Function's.
    pub name: String,
    /// Its `uid`.
    pub uid: Option<String>,
    /// Its `resourceVersion`.
    pub resource_version: Option<String>,
}

impl Removal {
    /// The removal of `object` as it is in the cache.
    pub fn of<K: Resource>(kind: Kind, object: &K) -> Self {
        Self { kind, name: object.name_any(), uid: object.uid(), resource_version: object.resource_version() }
    }
}

/// Reads from the caches alone, so it cannot fail.
pub fn dereference(context: &Context, key: &FunctionKey, function: &Function) -> Found {
    let uid = function.uid().unwrap_or_default();
    let caches = &context.caches;
    let mut leftovers = Vec::new();
    let revisions = mine(&caches.revisions, key, &uid, Kind::ControllerRevision, &mut leftovers);
    let deployments = mine(&caches.deployments, key, &uid, Kind::Deployment, &mut leftovers);
    let mut services = mine(&caches.services, key, &uid, Kind::Service, &mut leftovers);
    let pods = caches.pods.of(key);
    Found {
        revisions,
        deployments,
        service: services.remove(&key.name),
        pods: pods
            .into_iter()
            .filter(|pod| pod.function_uid() == Some(&uid) && pod.metadata.deletion_timestamp.is_none())
            .collect(),
        leftovers,
        lost_hosts: context.claims.lost(key, function),
        config: config(context, key, function),
    }
}

fn config(context: &Context, key: &FunctionKey, function: &Function) -> Config {
    let asks = function.spec.rollout().on_config_change() == OnConfigChange::NewRevision;
    let references = if asks { config::references(&function.spec) } else { BTreeMap::new() };
    let Some(configs) = &context.caches.configs else {
        return if asks { Config::NotWatched } else { Config::Ignored };
    };
    // First the note and then the look, so that a change between them is told.
    configs.watch(key, references.keys().cloned());
    if !asks {
        return Config::Ignored;
    }
    let version = |of: &Reference| configs.version(&key.namespace, of);
    Config::Watched(references.into_iter().map(|(of, optional)| (of.clone(), (optional, version(&of)))).collect())
}

/// Sorts what is filed under a Function into its own and what a former one of the same name has left. What is being
/// deleted counts as gone, and what has another kind of owner is not touched.
fn mine<K: Cached>(
    cache: &Cache<K>,
    key: &FunctionKey,
    uid: &str,
    kind: Kind,
    leftovers: &mut Vec<Removal>,
) -> BTreeMap<String, Arc<K>> {
    let mut mine = BTreeMap::new();
    for object in cache.of(key) {
        let metadata = object.meta();
        if metadata.deletion_timestamp.is_some() {
            continue;
        }
        if owned_by(metadata, uid) {
            mine.insert(object.name_any(), object);
        } else if is_leftover(controller(metadata), key, uid) {
            leftovers.push(Removal::of(kind, &*object));
        }
    }
    mine
}

/// Whether an owner is a former Function of the same name, which is gone since there is a newer one.
pub fn is_leftover(
    owner: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>,
    key: &FunctionKey,
    uid: &str,
) -> bool {
    owner.is_some_and(|o| {
        o.kind == "Function"
            && o.api_version.starts_with(rouse_crds::names::GROUP)
            && o.name == key.name
            && o.uid != uid
    })
}
