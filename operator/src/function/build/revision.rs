//! Revisions: what there is, and the object of a new one.

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
        Found,
        config::{self, Config},
    },
    validate::ValidatedFunction,
};

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
    /// The image, as the user wrote it then; empty if its ControllerRevision is gone.
    pub image: String,
    /// When it was made.
    pub created: Option<Time>,
    /// The versions of its configuration, as they were recorded.
    pub config: Option<String>,
}

/// Every revision of a function, by number.
pub fn known(function: &str, found: &Found) -> Vec<Known> {
    let mut by_number = BTreeMap::new();
    for (name, deployment) in &found.workloads.deployments {
        let number = name.strip_prefix(function).and_then(|rest| rest.strip_prefix('-')).and_then(|n| n.parse().ok());
        let hash = deployment.metadata.labels.as_ref().and_then(|l| l.get(CONTAINER_HASH_LABEL)).cloned();
        if let Some(number) = number {
            let created = deployment.metadata.creation_timestamp.clone();
            by_number.insert(
                number,
                Known { name: name.clone(), number, hash, template: None, image: String::new(), created, config: None },
            );
        }
    }
    for (name, revision) in &found.revisions {
        let mut data = revision.data.value();
        let image = data.pointer("/container/image").and_then(Value::as_str).unwrap_or_default().to_owned();
        let known = Known {
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

/// The object of a new revision.
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
