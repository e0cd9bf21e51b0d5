//! How a new revision takes over the calls.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, Percent};

/// How a new revision takes over the calls that go to the latest. Without steps: all at once, when a pod of it is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.abortOn) || (has(self.steps) && self.steps.size() > 0)").message("spec.rollout.abortOn judges the steps of a roll-out: set spec.rollout.steps, such as [10, 50]"),
)]
pub struct RolloutSpec {
    /// Shares of the calls, in percent and rising, that the new revision gets one after the other before it gets all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 20), inner(range(min = 1, max = 99)))]
    #[x_kube(validation = Rule::new("self.isSorted() && self.all(s, self.exists_one(t, t == s))").message("the shares in spec.rollout.steps must rise, such as [10, 50]"))]
    pub steps: Option<Vec<i32>>,
    /// How long each share lasts. Default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^([0-9]{1,9}(ms|s|m|h))+$') || (duration(self) >= duration('1s') && duration(self) <= duration('24h'))").message("spec.rollout.interval must be between 1s and 24h"))]
    pub interval: Option<Duration>,
    /// What makes the calls go back to where they came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_on: Option<AbortOn>,
    /// What happens when a ConfigMap or a Secret changes that the container takes its environment or a volume from.
    /// Default `Ignore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_config_change: Option<OnConfigChange>,
    /// What keeps a caller at the revision that answered before, while calls are split. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
}

/// What ends a roll-out, judged by the activators' own figures of the new revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.errorRate) || has(self.p99)").message("spec.rollout.abortOn needs errorRate, p99, or both"))]
pub struct AbortOn {
    /// A greater share of failed calls, such as `5%`. A call fails by a status of 500 or more, or by no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<Percent>,
    /// A longer time to the head of the answer, of all but the slowest hundredth of the calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99: Option<Duration>,
}

/// What happens when a ConfigMap or a Secret of the container changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnConfigChange {
    /// Pods that are started later have the new content, as with any Deployment.
    #[default]
    Ignore,
    /// A new revision is made and rolled out.
    NewRevision,
}

/// What keeps a caller at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.cookie) != has(self.header)").message("spec.rollout.affinity names either a cookie or a header"))]
pub struct Affinity {
    /// Name of a cookie that is set with the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_-]+$')").message("spec.rollout.affinity.cookie must be letters, digits, dashes and underscores"))]
    pub cookie: Option<String>,
    /// Name of a header of the call: the same value goes to the same revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_-]+$')").message("spec.rollout.affinity.header must be letters, digits, dashes and underscores"))]
    pub header: Option<String>,
}

/// A copy of a share of the calls; its answers are thrown away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Tag of `spec.traffic` that the copies go to.
    #[schemars(length(min = 1, max = 11))]
    pub tag: String,
    /// Share of the calls. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<i32>,
}

impl RolloutSpec {
    /// Shares before all, rising, each between 1 and 99.
    #[must_use]
    pub fn steps(&self) -> &[i32] {
        self.steps.as_deref().unwrap_or_default()
    }

    /// How long each share lasts.
    #[must_use]
    pub fn interval(&self) -> std::time::Duration {
        self.interval.unwrap_or(Duration::from_secs(60)).get()
    }

    /// What happens when a ConfigMap or a Secret of the container changes.
    #[must_use]
    pub fn on_config_change(&self) -> OnConfigChange {
        self.on_config_change.unwrap_or_default()
    }
}

impl Mirror {
    /// Share of the calls.
    #[must_use]
    pub fn percent(&self) -> u32 {
        self.percent.map_or(100, |n| u32::try_from(n).unwrap_or(0).min(100))
    }
}
