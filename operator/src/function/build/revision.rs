//! Revisions: what there is, and the object of a new one.

use std::collections::BTreeMap;

use k8s_openapi::{api::apps::v1::ControllerRevision, apimachinery::pkg::runtime::RawExtension};
use rouse_crds::names::CONTAINER_HASH_LABEL;
use serde_json::{Value, json};

use super::{metadata, revision_labels};
use crate::function::{dereference::Found, validate::ValidatedFunction};

/// How many revisions are kept, beside those that carry traffic.
pub const KEEP: usize = 10;

/// A revision of which the ControllerRevision, the Deployment or both exist.
#[derive(Debug)]
pub struct Known {
    /// `<function>-<00001>`.
    pub name: String,
    /// From 1.
    pub number: i64,
    /// Hash of what the user wrote about the container.
    pub hash: Option<String>,
    /// The pod template as it was built when the revision was made; `None` if its ControllerRevision is gone.
    pub template: Option<Value>,
}

/// Every revision of a function, by number.
pub fn known(function: &str, found: &Found) -> Vec<Known> {
    let mut by_number = BTreeMap::new();
    for (name, deployment) in &found.deployments {
        let number = name.strip_prefix(function).and_then(|rest| rest.strip_prefix('-')).and_then(|n| n.parse().ok());
        let hash = deployment.metadata.labels.as_ref().and_then(|l| l.get(CONTAINER_HASH_LABEL)).cloned();
        if let Some(number) = number {
            by_number.insert(number, Known { name: name.clone(), number, hash, template: None });
        }
    }
    for (name, revision) in &found.revisions {
        let known = Known {
            name: name.clone(),
            number: revision.revision,
            hash: revision.hash().map(str::to_owned),
            template: revision.data.value().get_mut("template").map(Value::take),
        };
        by_number.insert(revision.revision, known);
    }
    by_number.into_values().collect()
}

/// The object of a new revision.
pub fn build(function: &ValidatedFunction<'_>, name: &str, number: i64, template: &Value) -> ControllerRevision {
    let mut labels = revision_labels(function, name);
    labels.insert(CONTAINER_HASH_LABEL.to_owned(), function.hash.clone());
    ControllerRevision {
        metadata: metadata(function, name, labels),
        revision: number,
        data: Some(RawExtension(json!({"container": function.container, "template": template}))),
    }
}
