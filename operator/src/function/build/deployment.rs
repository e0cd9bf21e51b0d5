//! The Deployment of a revision: made once, then only brought back to what it was.

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

/// How long a roll-out may make no progress. Only a word in the Deployment's status: Rouse reads the pods.
const PROGRESS_DEADLINE_SECONDS: i32 = 600;

/// The Deployment of `revision` with its first count of pods. After it is made, the count belongs to the activator and
/// the scaler.
pub fn build(
    function: &ValidatedFunction<'_>,
    revision: &str,
    hash: &str,
    template: &Value,
    initial: u32,
) -> Result<Deployment, Invalid> {
    let template: PodTemplateSpec = serde_json::from_value(template.clone()).map_err(|error| {
        Invalid::new(format!("ControllerRevision {revision}"), format!("its template cannot be read: {error}"))
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
            // A template never changes, so there is no former ReplicaSet to go back to.
            revision_history_limit: Some(0),
            progress_deadline_seconds: Some(PROGRESS_DEADLINE_SECONDS),
            ..DeploymentSpec::default()
        }),
        status: None,
    })
}

/// What has to be written to bring a Deployment back.
///
/// It is a JSON patch that puts whole fields and tests the `resourceVersion`, and not a server-side apply: an apply
/// leaves what others have added to a list (a variable, a volume), so it would be made over and over. `replicas` is never
/// in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Repair {
    /// Name of the Deployment.
    pub name: String,
    /// Its `uid`.
    pub uid: String,
    /// The patch.
    pub patch: Value,
    /// Where it differed first, for the log.
    pub difference: String,
    /// What was found there.
    pub seen: CompactJson,
}

impl Repair {
    /// The repair that `live` needs, if it does.
    pub fn needed(wanted: &Deployment, template: &Value, live: &DeploymentObject) -> Option<Self> {
        let rest = live.spec.rest.value();
        let limits = json!({
            "revisionHistoryLimit": wanted.spec.as_ref().and_then(|s| s.revision_history_limit),
            "progressDeadlineSeconds": wanted.spec.as_ref().and_then(|s| s.progress_deadline_seconds),
        });
        let mut operations =
            vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": live.resource_version()})];
        let mut difference = None;
        let null = Value::Null;
        if let Some(path) = drift::missing(template, rest.get("template").unwrap_or(&null)) {
            operations.push(json!({"op": "replace", "path": "/spec/template", "value": template}));
            difference = Some(format!("spec.template{path}"));
        }
        // A history limit of 0 counts as absent for the comparison of templates, but here absent means 10.
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
