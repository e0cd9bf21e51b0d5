//! Status of a Function.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lenient::lenient;

/// Observed state of a Function. Written by the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus {
    /// `metadata.generation` that this status was computed from.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// URL of the default host on the ingress. Absent if `visibility` is `Cluster`.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Address of the Function inside the cluster.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Number of pods of all revisions.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicaStatus>,
    /// Name of the latest revision. It may not be ready yet.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub latest_revision: Option<String>,
    /// Current traffic split. Activators route by it and scale the Deployment with the name of the revision from zero.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficStatus>,
    /// Existing revisions, newest first.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<RevisionStatus>,
    /// Rollout that is in progress or was aborted.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Idle-time histogram of the autoscaler, encoded. Set while `scaling.prewarm` is `Auto`.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub idle_histogram: Option<String>,
    /// Conditions: `Ready`, `Routable`, `RevisionReady`, `Active`, `Scaled` and `Synced`.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Address of a Function inside the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// URL of the Function's Service: `http://{name}.{namespace}.svc.{cluster domain}`.
    pub url: String,
}

/// Number of pods of all revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// Number of pods that are requested.
    pub desired: i32,
    /// Number of pods that the kubelet reports ready.
    pub ready: i32,
}

/// Traffic percentage of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficStatus {
    /// Name of the revision and of its Deployment.
    pub revision: String,
    /// Percentage of the requests.
    pub percent: i32,
    /// Whether the entry comes from `latest: true`, or from a spec without `traffic`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub latest: bool,
    /// Tag of `spec.traffic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// URL of the tag on the ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// An existing revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Name of the revision, its ControllerRevision and its Deployment.
    pub name: String,
    /// Container image.
    pub image: String,
    /// Creation time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    /// Number of ready pods.
    #[serde(default)]
    pub ready: i32,
    /// Percentage of the requests that it receives.
    #[serde(default)]
    pub percent: i32,
}

/// Progress of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Revision that is rolled out.
    pub revision: String,
    /// Previous revision, which receives the remaining traffic.
    pub from: String,
    /// Percentage of the latest revision's traffic that the new revision receives.
    pub percent: i32,
    /// Start time of the current step. At 0 percent: time since which the revision is verified ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Number of ready pods that the new revision needs for its next step. Absent while a step lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<i32>,
    /// Phase of the rollout: `Progressing` or `Aborted`.
    pub phase: RolloutPhase,
    /// Reason for the abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Hash of `steps`, `interval` and `abortOn` of `spec.rollout` at the time of the abort. A change restarts the rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<String>,
}

/// Phase of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// The rollout is in progress.
    #[default]
    Progressing,
    /// The rollout was aborted and all traffic returned to the previous revision. A new revision, or a change of `steps`,
    /// `interval` or `abortOn`, starts a new rollout.
    Aborted,
}
