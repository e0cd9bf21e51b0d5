//! Step 3: builds the objects to write. Pure.

pub mod deployment;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod merge;
pub mod pod_defaults;
pub mod revision;
pub mod service;
pub mod template;
mod unknown_field;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{ControllerRevision, Deployment},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt as _;
use rouse_crds::names::{FUNCTION_LABEL, FUNCTION_UID_LABEL, MANAGED_BY, MANAGED_BY_LABEL, REVISION_LABEL};

use super::{
    dereference::{
        Dereferenced, Kind, Removal,
        config::{self, Config, ConfigChange},
    },
    rollout,
    validate::ValidatedFunction,
};
use crate::{hosts::Names, spec::invalid::Invalid};
use pod_defaults::PodDefaults;
use revision::{KnownRevision, known_revisions};

/// Changes to the objects of one Function. `S` is [`Prepared`] or [`super::apply::Applied`].
#[derive(Debug)]
pub struct Resources<S> {
    /// Name of the newest revision.
    pub latest: String,
    /// Objects of a deleted Function with the same name. They must be deleted before their names can be used.
    pub leftovers: Vec<Removal>,
    /// Revision to create.
    pub revision: Option<ControllerRevision>,
    /// Versions of ConfigMaps and Secrets to record with the newest revision.
    pub record: Option<ConfigRecord>,
    /// Deployments to create.
    pub create: Vec<Deployment>,
    /// Deployments to repair.
    pub repair: Vec<deployment::Repair>,
    /// Change to the Service.
    pub service: service::Plan,
    /// Old revisions and their Deployments to delete.
    pub remove: Vec<Removal>,
    /// Progress of the writes.
    pub state: S,
}

/// Versions of ConfigMaps and Secrets to record with a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRecord {
    /// Name of the revision.
    pub name: String,
    /// `uid` of the revision.
    pub uid: Option<String>,
    /// Value of the annotation.
    pub versions: String,
}

/// State of [`Resources`] that are not written yet.
#[derive(Debug)]
pub struct Prepared;

/// Builds the changes from the spec and the existing objects.
pub fn build(
    function: &ValidatedFunction<'_>,
    found: &Dereferenced,
    names: &Names,
    defaults: &PodDefaults,
) -> Result<Resources<Prepared>, Invalid> {
    let known = known_revisions(&function.key.name, found);
    let latest_known = known.last();
    // A deleted ControllerRevision is recreated, with the same name if its Deployment still exists.
    let mut record = None;
    let (number, make) = match latest_known {
        Some(latest) if latest.hash.as_deref() == Some(&function.hash) => match compare_config(latest, found) {
            ConfigChange::Changed => (latest.number + 1, true),
            ConfigChange::Same => (latest.number, latest.template.is_none()),
            ConfigChange::Record(versions) => {
                record = found.revisions.get(&latest.name).map(|revision| ConfigRecord {
                    name: latest.name.clone(),
                    uid: revision.uid(),
                    versions,
                });
                (latest.number, latest.template.is_none())
            }
        },
        Some(latest) => (latest.number + 1, true),
        None => (1, true),
    };
    let latest = rouse_crds::names::revision_name(&function.key.name, number);

    let initial = initial(function, found, &latest);
    let mut create = Vec::new();
    let mut repair = Vec::new();
    let revision = if make {
        let template = template::build(function, &latest, defaults)?;
        if found.workloads.deployments.contains_key(&latest) {
            // Compared after the watch has delivered the new ControllerRevision.
        } else {
            create.push(deployment::build(function, &latest, &function.hash, &template, initial)?);
        }
        Some(revision::build(function, &latest, number, &template, &found.config))
    } else {
        None
    };
    for KnownRevision { name, hash, template, .. } in &known {
        let Some(template) = template else { continue };
        let hash = hash.as_deref().unwrap_or_default();
        let current = *name == latest || function.in_use.contains(name);
        let initial = if *name == latest { initial } else { function.spec.scaling().initial() };
        let wanted = deployment::build(function, name, hash, template, initial)?;
        match found.workloads.deployments.get(name) {
            None if current => create.push(wanted),
            // A revision without traffic and without a Deployment is obsolete.
            None => {}
            Some(live) => repair.extend(deployment::Repair::needed(&wanted, template, live)),
        }
    }
    Ok(Resources {
        remove: obsolete(&known, &latest, function, found),
        latest,
        leftovers: found.leftovers.clone(),
        revision,
        record,
        create,
        repair,
        service: service::plan(function, found.service.as_deref(), names),
        state: Prepared,
    })
}

/// Compares the versions of ConfigMaps and Secrets with those that the newest revision was created with.
fn compare_config(latest: &KnownRevision, found: &Dereferenced) -> ConfigChange {
    match &found.config {
        Config::Ignored | Config::NotWatched => ConfigChange::Same,
        Config::Watched(versions) => config::compare(latest.config.as_deref(), versions),
    }
}

/// Number of pods that a new revision starts with: enough for its first rollout step, and for its verification.
fn initial(function: &ValidatedFunction<'_>, found: &Dereferenced, latest: &str) -> u32 {
    let scaling = function.spec.scaling();
    let routed = function.spec.routes_to_latest();
    let stable =
        function.status.and_then(|s| rollout::stable(s, routed, |name| found.workloads.deployments.contains_key(name)));
    let Some(stable) = stable.filter(|stable| stable != latest) else { return scaling.initial() };
    let ready = found.workloads.deployments.get(&stable).map_or(0, |d| d.ready());
    rollout::initial_pods(function.spec, &stable, ready).max(scaling.initial())
}

/// Unused revisions beyond `spec.revisionHistoryLimit` that have no pods: first the Deployment, and after its deletion
/// the ControllerRevision. A Deployment or ControllerRevision without its counterpart is obsolete as well.
fn obsolete(
    known: &[KnownRevision],
    latest: &str,
    function: &ValidatedFunction<'_>,
    found: &Dereferenced,
) -> Vec<Removal> {
    let idle: Vec<_> = known.iter().filter(|k| k.name != latest && !function.in_use.contains(&k.name)).collect();
    let old = idle.len().saturating_sub(function.spec.revision_history_limit());
    let candidates = idle
        .into_iter()
        .enumerate()
        .filter(|(i, k)| *i < old || k.template.is_none() || !found.workloads.deployments.contains_key(&k.name))
        .map(|(_, k)| k);
    candidates
        .filter_map(|known| match (found.workloads.deployments.get(&known.name), found.revisions.get(&known.name)) {
            (Some(deployment), _) => {
                let empty = deployment.desired() == 0 && deployment.status.replicas == 0;
                empty.then(|| Removal::of(Kind::Deployment, &**deployment))
            }
            (None, Some(revision)) => Some(Removal::of(Kind::ControllerRevision, &**revision)),
            (None, None) => None,
        })
        .collect()
}

/// Labels of all objects of a Function.
fn labels(function: &ValidatedFunction<'_>) -> BTreeMap<String, String> {
    BTreeMap::from([
        (FUNCTION_LABEL.to_owned(), function.key.name.clone()),
        (FUNCTION_UID_LABEL.to_owned(), function.uid.clone()),
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
    ])
}

/// Labels of all objects of a revision.
fn revision_labels(function: &ValidatedFunction<'_>, revision: &str) -> BTreeMap<String, String> {
    let mut labels = labels(function);
    labels.insert(REVISION_LABEL.to_owned(), revision.to_owned());
    labels
}

fn metadata(function: &ValidatedFunction<'_>, name: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(function.key.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(vec![function.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// Returns whether a live object lacks a label.
fn labels_missing(wanted: &ObjectMeta, live: &impl kube::Resource) -> bool {
    wanted.labels.iter().flatten().any(|(name, value)| live.labels().get(name) != Some(value))
}

#[cfg(test)]
mod tests;
