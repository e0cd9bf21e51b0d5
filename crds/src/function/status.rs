//! What the operator says of a Function.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator says of a Function.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionStatus {
    /// The generation of the spec that the rest speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the ingress answers for it; nothing for a `Cluster` function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where pods of the cluster call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Pods, over all revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicaStatus>,
    /// Name of the newest revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_revision: Option<String>,
    /// Which revisions get which share of the calls now. The activator wakes the Deployment of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficStatus>,
    /// The revisions that there are, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<RevisionStatus>,
    /// The roll-out that is under way, or the one that was ended before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// What was learned of its idle times, while `scaling.prewarm` is `Auto`. Written by the autoscaler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub habits: Option<String>,
    /// `Ready`, `Routable`, `RevisionReady`, `Active`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where pods of the cluster call a function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// `http://{name}.{namespace}.svc.{cluster domain}`.
    pub url: String,
}

/// Pods, over all revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// Wanted.
    pub desired: i32,
    /// Ready, as kubelet sees it.
    pub ready: i32,
}

/// A share of the calls, resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrafficStatus {
    /// Name of the revision and of its Deployment.
    pub revision: String,
    /// Share of the calls.
    pub percent: i32,
    /// The spec said `latest`, or said nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub latest: bool,
    /// A name under which this revision can be called directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Where the ingress answers for the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// A revision that there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// Its name and that of its ControllerRevision and Deployment.
    pub name: String,
    /// The container image.
    pub image: String,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
    /// Pods of it that are ready.
    #[serde(default)]
    pub ready: i32,
    /// Share of the calls that it gets now.
    #[serde(default)]
    pub percent: i32,
}

/// How far a roll-out is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The revision that is to take over.
    pub revision: String,
    /// The revision that has the other calls.
    pub from: String,
    /// Share of the calls to the latest that the new revision gets now.
    pub percent: i32,
    /// Since when it gets that share. With a share of 0: since when it has proven itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Pods that the new revision is to have before it gets its next share; nothing while a share lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<i32>,
    /// Whether it goes on.
    pub phase: RolloutPhase,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// A hash of `spec.rollout`'s steps, interval and abortOn as they were when it was ended. With others it is begun anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<String>,
}

/// Whether a roll-out goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// It does.
    #[default]
    Progressing,
    /// It was ended, and the calls went back. It stays so until there is another revision, or steps, interval or abortOn
    /// are others.
    Aborted,
}
