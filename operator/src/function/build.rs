//! Step three: what is to be written. Pure.

pub mod deployment;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod merge;
pub mod revision;
pub mod service;
pub mod template;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{ControllerRevision, Deployment},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt as _;
use rouse_crds::names::{FUNCTION_LABEL, FUNCTION_UID_LABEL, MANAGED_BY, MANAGED_BY_LABEL, REVISION_LABEL};

use super::{
    dereference::{
        Found, Kind, Removal,
        config::{self, Config, Verdict},
    },
    rollout,
    validate::ValidatedFunction,
};
use crate::{hosts::Names, spec::invalid::Invalid};
use revision::{Known, known};

/// What is to be done to the objects of one Function. `S` is [`Prepared`] or [`super::apply::Applied`].
#[derive(Debug)]
pub struct Resources<S> {
    /// Name of the newest revision.
    pub latest: String,
    /// What a former Function of the same name has left: it has to be gone before its names can be used.
    pub leftovers: Vec<Removal>,
    /// A revision to be made.
    pub revision: Option<ControllerRevision>,
    /// Versions of the configuration to be noted down with the newest revision.
    pub record: Option<Record>,
    /// Deployments to be made.
    pub create: Vec<Deployment>,
    /// Deployments to be brought back to what they were.
    pub repair: Vec<deployment::Repair>,
    /// What is to be done about the Service.
    pub service: service::Plan,
    /// Old revisions and their Deployments that are to go.
    pub remove: Vec<Removal>,
    /// How far it is.
    pub state: S,
}

/// Versions of ConfigMaps and Secrets that belong to a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The revision.
    pub name: String,
    /// Its `uid`.
    pub uid: Option<String>,
    /// The annotation's value.
    pub versions: String,
}

/// Not written yet.
#[derive(Debug)]
pub struct Prepared;

/// Builds from what the user wrote and what there is.
pub fn build(function: &ValidatedFunction<'_>, found: &Found, names: &Names) -> Result<Resources<Prepared>, Invalid> {
    let known = known(&function.key.name, found);
    let latest_known = known.last();
    // A revision is made anew if its ControllerRevision was deleted, under the same name if its Deployment is still there.
    let mut record = None;
    let (number, make) = match latest_known {
        Some(latest) if latest.hash.as_deref() == Some(&function.hash) => match configuration(latest, found) {
            Verdict::Changed => (latest.number + 1, true),
            Verdict::Same => (latest.number, latest.template.is_none()),
            Verdict::Record(versions) => {
                record = found.revisions.get(&latest.name).map(|revision| Record {
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
        let template = template::build(function, &latest)?;
        if found.workloads.deployments.contains_key(&latest) {
            // Compared when the new ControllerRevision has come back through the watch.
        } else {
            create.push(deployment::build(function, &latest, &function.hash, &template, initial)?);
        }
        Some(revision::build(function, &latest, number, &template, &found.config))
    } else {
        None
    };
    for Known { name, hash, template, .. } in &known {
        let Some(template) = template else { continue };
        let hash = hash.as_deref().unwrap_or_default();
        let current = *name == latest || function.carrying.contains(name);
        let initial = if *name == latest { initial } else { function.spec.scaling().initial() };
        let wanted = deployment::build(function, name, hash, template, initial)?;
        match found.workloads.deployments.get(name) {
            None if current => create.push(wanted),
            // One that nothing is sent to and that has no Deployment was given up: it goes.
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

/// How the configuration stands to the one that the newest revision was made with.
fn configuration(latest: &Known, found: &Found) -> Verdict {
    match &found.config {
        Config::Ignored | Config::NotWatched => Verdict::Same,
        Config::Watched(versions) => config::compare(latest.config.as_deref(), versions),
    }
}

/// Pods that a new revision begins with: as many as its first share of the calls needs now, or as prove it.
fn initial(function: &ValidatedFunction<'_>, found: &Found, latest: &str) -> u32 {
    let scaling = function.spec.scaling();
    let called = function.spec.routes_to_latest();
    let stable =
        function.status.and_then(|s| rollout::stable(s, called, |name| found.workloads.deployments.contains_key(name)));
    let Some(stable) = stable.filter(|stable| stable != latest) else { return scaling.initial() };
    let ready = found.workloads.deployments.get(&stable).map_or(0, |d| d.ready());
    rollout::pods_to_begin(function.spec, &stable, ready).max(scaling.initial())
}

/// Revisions beyond the last `spec.revisionHistoryLimit` of those that carry nothing, if they have no pods: first the
/// Deployment, and when that is gone its ControllerRevision. Whichever of the two is without the other goes as well.
fn obsolete(known: &[Known], latest: &str, function: &ValidatedFunction<'_>, found: &Found) -> Vec<Removal> {
    let idle: Vec<_> = known.iter().filter(|k| k.name != latest && !function.carrying.contains(&k.name)).collect();
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

/// Labels of everything of a function.
fn labels(function: &ValidatedFunction<'_>) -> BTreeMap<String, String> {
    BTreeMap::from([
        (FUNCTION_LABEL.to_owned(), function.key.name.clone()),
        (FUNCTION_UID_LABEL.to_owned(), function.uid.clone()),
        (MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned()),
    ])
}

/// Labels of everything of a revision.
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

/// Whether an object has lost a label that it was made with.
fn labels_missing(wanted: &ObjectMeta, live: &impl kube::Resource) -> bool {
    wanted.labels.iter().flatten().any(|(name, value)| live.labels().get(name) != Some(value))
}

#[cfg(test)]
mod tests;
