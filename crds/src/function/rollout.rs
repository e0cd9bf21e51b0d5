//! Rollout of a new revision, session affinity and traffic mirroring.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Percent};

/// Rollout of a new revision. Without `steps`, all traffic moves when the new revision has ready pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.abortOn) || (has(self.steps) && self.steps.size() > 0)").message("spec.rollout.abortOn applies to the steps of a rollout; set spec.rollout.steps, such as [10, 50]"),
)]
pub struct RolloutSpec {
    /// Traffic percentages of the new revision, in ascending order, such as [10, 50]. After the last step it receives 100 %.
    /// Default: no steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), inner(range(min = 1, max = 99)))]
    #[x_kube(validation = Rule::new("self.isSorted() && self.all(s, self.exists_one(t, t == s))").message("spec.rollout.steps must be in ascending order without duplicates, such as [10, 50]"))]
    pub steps: Option<Vec<i32>>,
    /// Duration of each step. Default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))").message("spec.rollout.interval must be between 1s and 24h"))]
    pub interval: Option<Duration>,
    /// Conditions for a rollback: all traffic returns to the previous revision. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_on: Option<AbortOn>,
    /// Reaction to a change of a ConfigMap or Secret that the pod uses: `Ignore` or `NewRevision`. Default `Ignore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_config_change: Option<OnConfigChange>,
    /// Session affinity: keeps a client on one revision while traffic is split. Default: no affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
}

/// Conditions for a rollback. Activators measure the requests of the new revision during each step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.errorRate) || has(self.p99)").message("spec.rollout.abortOn must set errorRate, p99, or both"))]
pub struct AbortOn {
    /// Aborts when the percentage of failed requests is higher, such as `5%`. A request fails with status 500 or higher, or
    /// without a response. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<Percent>,
    /// Aborts when the 99th percentile of the time to the response headers is longer, such as `500ms`. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<Duration>,
}

/// Reaction to a change of a ConfigMap or Secret that the pod uses: `Ignore` or `NewRevision`. Default `Ignore`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnConfigChange {
    /// Pods that start later use the new content, as with any Deployment.
    #[default]
    Ignore,
    /// A new revision is created and rolled out.
    NewRevision,
}

/// Session affinity: keeps a client on one revision while traffic is split.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.cookie) != has(self.header)").message("spec.rollout.affinity must set exactly one of cookie and header"))]
pub struct Affinity {
    /// Name of a cookie that Rouse sets in the response and reads from later requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_-]+$')").message("spec.rollout.affinity.cookie must contain only letters, digits, dashes and underscores"))]
    pub cookie: Option<String>,
    /// Name of a request header. Requests with the same value go to the same revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_-]+$')").message("spec.rollout.affinity.header must contain only letters, digits, dashes and underscores"))]
    pub header: Option<String>,
}

/// Traffic mirroring: sends copies of requests to a tag and discards their responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Tag of `spec.traffic` that receives the mirrored requests. Required.
    #[schemars(length(min = 1, max = 11))]
    pub tag: String,
    /// Percentage of the requests that is mirrored. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<i32>,
}

impl RolloutSpec {
    /// Traffic percentages of the steps, ascending, each between 1 and 99.
    #[must_use]
    pub fn steps(&self) -> &[i32] {
        self.steps.as_deref().unwrap_or_default()
    }

    /// Duration of each step.
    #[must_use]
    pub fn interval(&self) -> std::time::Duration {
        self.interval.unwrap_or(Duration::from_secs(60)).get()
    }

    /// Reaction to a change of a ConfigMap or Secret that the pod uses: `Ignore` or `NewRevision`. Default `Ignore`.
    #[must_use]
    pub fn on_config_change(&self) -> OnConfigChange {
        self.on_config_change.unwrap_or_default()
    }
}

impl Mirror {
    /// Percentage of the requests that is mirrored, at most 100.
    #[must_use]
    pub fn percent(&self) -> u32 {
        self.percent.map_or(100, |n| u32::try_from(n).unwrap_or(0).min(100))
    }
}
