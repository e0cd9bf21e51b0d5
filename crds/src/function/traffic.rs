//! Who can call a function, and which revision gets the call.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FunctionSpec;

/// Who can call a function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Visibility {
    /// Anybody who reaches the ingress, and every pod.
    #[default]
    Public,
    /// Pods of the cluster only.
    Cluster,
}

/// A share of the calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.revision) != (has(self.latest) && self.latest)").message("each entry of spec.traffic names either a revision or `latest: true`"),
    validation = Rule::new("has(self.percent) || has(self.tag)").message("each entry of spec.traffic needs a percent, a tag, or both"),
)]
pub struct TrafficTarget {
    /// Name of a revision, such as `hello-00003`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 7, max = 63))]
    pub revision: Option<String>,
    /// The latest revision that has proven itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<bool>,
    /// Share of the calls; all shares add up to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// A name under which this revision can be called directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 11))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("spec.traffic[].tag must be lower-case letters, digits and dashes, beginning with a letter, at most 11 long"))]
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
