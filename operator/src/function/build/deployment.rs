//! Deployment of a revision: created once, then only repaired.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::ResourceExt as _;
use rouse_crds::names::{CONTAINER_HASH_LABEL, FUNCTION_LABEL, FUNCTION_UID_LABEL, REVISION_LABEL};
use serde_json::{Value, json};

use super::{labels_missing, metadata, revision_labels};
use crate::{
    cluster::{
        children::{CompactJson, DeploymentObject},
        drift,
    },
    function::validate::ValidatedFunction,
    spec::invalid::Invalid,
};

/// Progress deadline of the Deployment. It only affects the Deployment's status; Rouse observes the pods.
const PROGRESS_DEADLINE_SECONDS: i32 = 600;

/// Builds the Deployment of `revision` with its initial number of replicas. After its creation, activators and the
/// scaler own `replicas`.
pub fn build(
    function: &ValidatedFunction<'_>,
    revision: &str,
    hash: &str,
    template: &Value,
    initial: u32,
) -> Result<Deployment, Invalid> {
    let template: PodTemplateSpec = serde_json::from_value(template.clone()).map_err(|error| {
        Invalid::new(format!("ControllerRevision {revision}"), format!("failed to parse its pod template: {error}"))
    })?;
    let mut labels = revision_labels(function, revision);
    let selector = labels
        .iter()
        .filter(|(name, _)| [FUNCTION_LABEL, FUNCTION_UID_LABEL, REVISION_LABEL].contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    labels.insert(CONTAINER_HASH_LABEL.to_owned(), hash.to_owned());
    Ok(Deployment {
        metadata: metadata(function, revision, labels),
        spec: Some(DeploymentSpec {
            replicas: Some(i32::try_from(initial).unwrap_or(i32::MAX)),
            selector: LabelSelector { match_labels: Some(selector), match_expressions: None },
            template,
            // The template never changes, so there is no previous ReplicaSet to roll back to.
            revision_history_limit: Some(0),
            progress_deadline_seconds: Some(PROGRESS_DEADLINE_SECONDS),
            ..DeploymentSpec::default()
        }),
        status: None,
    })
}

/// Repair of a Deployment that was modified externally.
///
/// A JSON patch that replaces whole fields. It contains the `resourceVersion`, so the API server responds with a conflict if
/// the Deployment has changed. Server-side apply would keep elements that
/// others added to a list (a variable, a volume), so the repair would repeat. The patch never contains `replicas`.
#[derive(Clone, Debug, PartialEq)]
pub struct Repair {
    /// Name of the Deployment.
    pub name: String,
    /// `uid` of the Deployment.
    pub uid: String,
    /// JSON patch.
    pub patch: Value,
    /// Path of the first difference, for the log.
    pub difference: String,
    /// Live spec.
    pub seen: CompactJson,
}

impl Repair {
    /// Returns the repair that `live` needs, if any.
    pub fn needed(wanted: &Deployment, template: &Value, live: &DeploymentObject) -> Option<Self> {
        let rest = live.spec.rest.value();
        let limits = json!({
            "revisionHistoryLimit": wanted.spec.as_ref().and_then(|s| s.revision_history_limit),
            "progressDeadlineSeconds": wanted.spec.as_ref().and_then(|s| s.progress_deadline_seconds),
        });
        let mut operations =
            vec![json!({"op": "replace", "path": "/metadata/resourceVersion", "value": live.resource_version()})];
        let mut difference = None;
        let null = Value::Null;
        if let Some(path) = drift::missing(template, rest.get("template").unwrap_or(&null)) {
            operations.push(json!({"op": "replace", "path": "/spec/template", "value": template}));
            difference = Some(format!("spec.template{path}"));
        }
        // Drift detection treats a history limit of 0 as absent, but here absent means 10.
        for name in ["revisionHistoryLimit", "progressDeadlineSeconds"] {
            if rest.get(name) != limits.get(name) {
                operations.push(json!({"op": "add", "path": format!("/spec/{name}"), "value": limits.get(name)}));
                difference.get_or_insert_with(|| format!("spec.{name}"));
            }
        }
        if labels_missing(&wanted.metadata, live) {
            let mut labels = live.labels().clone();
            labels.extend(wanted.metadata.labels.clone().unwrap_or_default());
            operations.push(json!({"op": "add", "path": "/metadata/labels", "value": labels}));
            difference.get_or_insert_with(|| "metadata.labels".to_owned());
        }
        Some(Self {
            name: live.name_any(),
            uid: live.uid().unwrap_or_default(),
            patch: Value::Array(operations),
            difference: difference?,
            seen: live.spec.rest.clone(),
        })
    }
}
