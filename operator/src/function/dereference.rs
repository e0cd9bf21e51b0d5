//! Step 1: reads the objects that a Function owns and refers to from the caches.

pub mod config;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _};
use rouse_crds::{
    Function,
    function::OnConfigChange,
    names::{FUNCTION_LABEL, FUNCTION_UID_LABEL, MANAGED_BY, MANAGED_BY_LABEL},
};

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

/// Objects and facts of one Function.
#[derive(Debug, Default)]
pub struct Dereferenced {
    /// ControllerRevisions, by name.
    pub revisions: BTreeMap<String, Arc<RevisionObject>>,
    /// Deployments and pods.
    pub workloads: Workloads,
    /// Service.
    pub service: Option<Arc<ServiceObject>>,
    /// Objects of a deleted Function with the same name.
    pub leftovers: Vec<Removal>,
    /// Claimed hosts that are not routed to the Function.
    pub lost_hosts: Vec<LostHost>,
    /// ConfigMaps and Secrets that its pods use.
    pub config: Config,
}

/// Kinds of child objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Revision.
    ControllerRevision,
    /// Deployment of a revision.
    Deployment,
    /// Service of the Function.
    Service,
}

/// An object to delete. The preconditions `uid` and `resourceVersion` protect a recreated or changed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Kind.
    pub kind: Kind,
    /// Name. The namespace is that of the Function.
    pub name: String,
    /// `uid`.
    pub uid: Option<String>,
    /// `resourceVersion`.
    pub resource_version: Option<String>,
}

impl Removal {
    /// Creates the removal of `object` in its cached version.
    pub fn of<K: Resource>(kind: Kind, object: &K) -> Self {
        Self { kind, name: object.name_any(), uid: object.uid(), resource_version: object.resource_version() }
    }
}

/// Reads the objects of a Function. Cannot fail, because it reads from the caches only.
pub fn dereference(context: &Context, key: &FunctionKey, function: &Function) -> Dereferenced {
    let uid = function.uid().unwrap_or_default();
    let caches = &context.caches;
    let mut leftovers = Vec::new();
    let revisions = owned(&caches.revisions, key, &uid, leftover(Kind::ControllerRevision, key, &uid, &mut leftovers));
    let workloads = Workloads::of(caches, key, &uid, leftover(Kind::Deployment, key, &uid, &mut leftovers));
    let mut services = owned(&caches.services, key, &uid, leftover(Kind::Service, key, &uid, &mut leftovers));
    Dereferenced {
        revisions,
        workloads,
        service: services.remove(&key.name),
        leftovers,
        lost_hosts: context.claims.lost(key, function),
        config: config(context, key, function),
    }
}

fn config(context: &Context, key: &FunctionKey, function: &Function) -> Config {
    let watches = function.spec.rollout().on_config_change() == OnConfigChange::NewRevision;
    let references = if watches { config::references(&function.spec) } else { BTreeMap::new() };
    let Some(configs) = &context.caches.configs else {
        return if watches { Config::NotWatched } else { Config::Ignored };
    };
    // Subscribe before reading, so a change in between triggers a reconcile.
    configs.subscribe(key, references.keys().cloned());
    if !watches {
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
        if is_leftover(object.meta(), key, uid) {
            leftovers.push(Removal::of(kind, object));
        }
    }
}

/// Returns whether an object was left behind by a deleted Function with the same name. That Function must be deleted, because a
/// newer one exists.
///
/// With `kubectl delete --cascade=orphan` the object has no owner any more. It is then recognized by its labels: they name the
/// Function, and a `uid` of another one.
pub fn is_leftover(metadata: &ObjectMeta, key: &FunctionKey, uid: &str) -> bool {
    if let Some(owner) = controller(metadata) {
        return owner.kind == "Function"
            && owner.api_version.starts_with(rouse_crds::names::GROUP)
            && owner.name == key.name
            && owner.uid != uid;
    }
    let label = |name: &str| metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
    label(MANAGED_BY_LABEL) == Some(MANAGED_BY)
        && label(FUNCTION_LABEL) == Some(&key.name)
        && label(FUNCTION_UID_LABEL).is_some_and(|of| of != uid)
}
