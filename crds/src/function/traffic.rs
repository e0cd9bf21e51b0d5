//! Visibility of a Function, and the traffic split between its revisions.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FunctionSpec;

/// Clients that can reach the Function: `Public` (through the ingress and from pods) or `Cluster` (from pods only). Default
/// `Public`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Visibility {
    /// Clients of the ingress, and every pod of the cluster.
    #[default]
    Public,
    /// Pods of the cluster only.
    Cluster,
}

/// Traffic target: a revision with its percentage of the requests, a tag, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.revision) != (has(self.latest) && self.latest)").message("each entry of spec.traffic must set exactly one of `revision` and `latest: true`"),
    validation = Rule::new("has(self.percent) || has(self.tag)").message("each entry of spec.traffic must set percent, tag, or both"),
)]
pub struct TrafficTarget {
    /// Name of a revision, such as `hello-00003`. Exclusive with `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 7, max = 63))]
    pub revision: Option<String>,
    /// Selects the latest ready revision. Exclusive with `revision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<bool>,
    /// Percentage of the requests. All percentages add up to 100. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// Name of an extra host, `{tag}-{name}.{namespace}.{domain}`, that reaches this revision directly. Default: no tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 11))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("spec.traffic[].tag must be lower-case letters, digits and dashes, start with a letter, and have at most 11 characters"))]
    pub tag: Option<String>,
}

impl FunctionSpec {
    /// Percentage of all requests that goes to the latest revision; `None` if `traffic` does not name it.
    #[must_use]
    pub fn latest_percent(&self) -> Option<u32> {
        let Some(traffic) = self.traffic.as_deref().filter(|traffic| !traffic.is_empty()) else { return Some(100) };
        let mut latest = traffic.iter().filter(|target| target.revision.is_none()).peekable();
        latest.peek()?;
        Some(latest.map(|target| u32::try_from(target.percent.unwrap_or(0)).unwrap_or(0)).sum())
    }

    /// Whether any requests go to the latest revision.
    #[must_use]
    pub fn routes_to_latest(&self) -> bool {
        self.latest_percent().is_some_and(|percent| percent > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(revision: Option<&str>, percent: i32) -> TrafficTarget {
        let latest = revision.is_none().then_some(true);
        TrafficTarget { revision: revision.map(str::to_owned), latest, percent: Some(percent), tag: None }
    }

    #[test]
    fn percentage_of_the_latest_revision() {
        let percent = |traffic| FunctionSpec { traffic, ..FunctionSpec::default() }.latest_percent();
        assert_eq!(percent(None), Some(100));
        assert_eq!(percent(Some(vec![])), Some(100));
        assert_eq!(percent(Some(vec![target(Some("f-1"), 90), target(None, 10)])), Some(10));
        assert_eq!(percent(Some(vec![target(Some("f-1"), 100), target(None, 0)])), Some(0));
        assert_eq!(percent(Some(vec![target(Some("f-1"), 100)])), None);
    }
}
