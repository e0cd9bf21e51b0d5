//! Existing revisions, and the ControllerRevision of a new one.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::ControllerRevision,
    apimachinery::pkg::{apis::meta::v1::Time, runtime::RawExtension},
};
use rouse_crds::names::{CONFIG_ANNOTATION, CONTAINER_HASH_LABEL, IMAGE_ANNOTATION};
use serde_json::{Value, json};

use super::{metadata, revision_labels};
use crate::function::{
    dereference::{
        Dereferenced,
        config::{self, Config},
    },
    validate::ValidatedFunction,
};

/// An existing revision: it has a ControllerRevision, a Deployment or both.
#[derive(Debug)]
pub struct KnownRevision {
    /// Name, `<function>-<00001>`.
    pub name: String,
    /// Number, from 1.
    pub number: i64,
    /// Hash of the container fields.
    pub hash: Option<String>,
    /// Pod template at the creation of the revision; `None` if its ControllerRevision was deleted.
    pub template: Option<Value>,
    /// Image at the creation of the revision; empty if its ControllerRevision was deleted.
    pub image: String,
    /// Creation time.
    pub created: Option<Time>,
    /// Recorded versions of ConfigMaps and Secrets.
    pub config: Option<String>,
}

/// Returns all revisions of a Function, by number.
pub fn known_revisions(function: &str, found: &Dereferenced) -> Vec<KnownRevision> {
    let mut by_number = BTreeMap::new();
    for (name, deployment) in &found.workloads.deployments {
        let number = name.strip_prefix(function).and_then(|rest| rest.strip_prefix('-')).and_then(|n| n.parse().ok());
        let hash = deployment.metadata.labels.as_ref().and_then(|l| l.get(CONTAINER_HASH_LABEL)).cloned();
        if let Some(number) = number {
            let created = deployment.metadata.creation_timestamp.clone();
            by_number.insert(
                number,
                KnownRevision {
                    name: name.clone(),
                    number,
                    hash,
                    template: None,
                    image: String::new(),
                    created,
                    config: None,
                },
            );
        }
    }
    for (name, revision) in &found.revisions {
        let mut data = revision.data.value();
        let image = data.pointer("/container/image").and_then(Value::as_str).unwrap_or_default().to_owned();
        let known = KnownRevision {
            name: name.clone(),
            number: revision.revision,
            hash: revision.hash().map(str::to_owned),
            template: data.get_mut("template").map(Value::take),
            image,
            created: revision.metadata.creation_timestamp.clone(),
            config: revision.metadata.annotations.as_ref().and_then(|a| a.get(CONFIG_ANNOTATION)).cloned(),
        };
        by_number.insert(revision.revision, known);
    }
    by_number.into_values().collect()
}

/// Builds the ControllerRevision of a new revision.
pub fn build(
    function: &ValidatedFunction<'_>,
    name: &str,
    number: i64,
    template: &Value,
    config: &Config,
) -> ControllerRevision {
    let mut labels = revision_labels(function, name);
    labels.insert(CONTAINER_HASH_LABEL.to_owned(), function.hash.clone());
    let mut metadata = metadata(function, name, labels);
    let mut annotations = BTreeMap::from([(IMAGE_ANNOTATION.to_owned(), function.spec.image.clone())]);
    if let Config::Watched(versions) = config {
        annotations.insert(CONFIG_ANNOTATION.to_owned(), config::record(versions));
    }
    metadata.annotations = Some(annotations);
    ControllerRevision {
        metadata,
        revision: number,
        data: Some(RawExtension(json!({"container": function.container, "template": template}))),
    }
}
