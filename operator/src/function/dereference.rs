//! Step one: everything that a Function refers to and owns, as the caches have it.

pub mod config;

use std::{collections::BTreeMap, sync::Arc};

use kube::{Resource, ResourceExt as _};
use rouse_crds::{Function, function::OnConfigChange};

use super::Context;
use crate::{
    cluster::{
        children::{RevisionObject, ServiceObject, controller},
        config_versions::Reference,
        key::FunctionKey,
    },
    hosts::LostHost,
    workloads::{Workloads, owned},
};
use config::Config;

/// What belongs to one Function.
#[derive(Debug, Default)]
pub struct Found {
    /// Its revisions, by name.
    pub revisions: BTreeMap<String, Arc<RevisionObject>>,
    /// Their Deployments, and its pods.
    pub workloads: Workloads,
    /// Its Service.
    pub service: Option<Arc<ServiceObject>>,
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
    let revisions = owned(&caches.revisions, key, &uid, leftover(Kind::ControllerRevision, key, &uid, &mut leftovers));
    let workloads = Workloads::of(caches, key, &uid, leftover(Kind::Deployment, key, &uid, &mut leftovers));
    let mut services = owned(&caches.services, key, &uid, leftover(Kind::Service, key, &uid, &mut leftovers));
    Found {
        revisions,
        workloads,
        service: services.remove(&key.name),
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

/// Collects the objects that a former Function of the same name left behind. Objects of other owners are not touched.
fn leftover<'a, K: Resource<DynamicType = ()>>(
    kind: Kind,
    key: &'a FunctionKey,
    uid: &'a str,
    leftovers: &'a mut Vec<Removal>,
) -> impl FnMut(&K) + 'a {
    move |object| {
        if is_leftover(controller(object.meta()), key, uid) {
            leftovers.push(Removal::of(kind, object));
        }
    }
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
