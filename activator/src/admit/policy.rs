//! What a Function's spec says about its requests, in the form that the data path reads.

use std::time::Duration;

use http::HeaderName;
use rouse_crds::{
    function::{Affinity, FunctionSpec, Metric, Protocol},
    pod::ReadinessCheck,
};

/// The part of a request that identifies a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AffinityKey {
    /// The cookie of this name, which is set with the response.
    Cookie(Box<str>),
    /// The value of this header.
    Header(HeaderName),
}

/// Where mirrored requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorTarget {
    /// The tag.
    pub tag: Box<str>,
    /// Percentage of requests that are mirrored.
    pub percent: u32,
}

/// What a Function's spec says about its requests. Replaced as a whole when the spec changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Maximum number of concurrent requests in one pod; `None` is no limit.
    pub limit: Option<u32>,
    /// Requests per pod that the number of pods of a wake is computed from.
    pub target: f64,
    /// Minimum number of pods.
    pub min: u32,
    /// Maximum number of pods.
    pub max: u32,
    /// Maximum number of queued requests.
    pub queue_requests: u32,
    /// Maximum number of bytes of queued requests.
    pub queue_bytes: u64,
    /// How long a request waits for a pod.
    pub cold_start: Duration,
    /// How long a pod may take to send the head of its response.
    pub response: Duration,
    /// How long neither side may send a byte.
    pub idle: Option<Duration>,
    /// What session affinity is by, while traffic is split.
    pub affinity: Option<AffinityKey>,
    /// Where mirrored requests go.
    pub mirror: Option<MirrorTarget>,
    /// Whether outcomes of requests are counted, because a rollout is aborted by them.
    pub count_outcomes: bool,
    /// Port of the container, where the pod does not say it.
    pub port: u16,
    /// What the container speaks, where the pod does not say it.
    pub protocol: Protocol,
    /// Path of the HTTP readiness check, where the pod does not say it.
    pub readiness_path: Option<String>,
}

/// Most pods of a wake. The chart's policy on the activator's account refuses more, so that a stolen token cannot start any
/// number of pods; the operator scales further.
const WAKE_REPLICAS_MAX: u32 = 100;

impl Policy {
    /// Pods to wake a revision with: one, or `scaling.min`. How many more a queue needs depends on how long a request takes,
    /// which the autoscaler knows; a thousand requests of ten milliseconds are one second of work for a pod that takes ten at
    /// once.
    #[must_use]
    pub fn wake_replicas(&self) -> u32 {
        self.min.clamp(1, self.max.max(1)).min(WAKE_REPLICAS_MAX)
    }
}

impl Policy {
    /// Returns how a pod is found ready that does not declare it.
    pub(super) fn readiness_check(&self) -> ReadinessCheck {
        self.readiness_path.as_deref().map_or(ReadinessCheck::Tcp, |path| ReadinessCheck::Http(path.into()))
    }
}

impl AffinityKey {
    /// Reads the spec. The schema restricts the names; an invalid one identifies no client.
    fn of(affinity: &Affinity) -> Option<Self> {
        let cookie = || affinity.cookie.as_deref().map(|name| Self::Cookie(name.into()));
        let header = || affinity.header.as_deref().and_then(|name| name.parse().ok()).map(Self::Header);
        cookie().or_else(header)
    }
}

impl From<&FunctionSpec> for Policy {
    fn from(spec: &FunctionSpec) -> Self {
        let (scaling, timeouts, queue) = (spec.scaling(), spec.timeouts(), spec.queue());
        Self {
            limit: scaling.concurrency_limit(),
            target: match scaling.metric() {
                Metric::Concurrency => scaling.target(),
                // A rate says nothing about how many may be in a pod at once.
                Metric::Rps => scaling.concurrency_limit().map_or(70.0, f64::from),
            },
            min: scaling.min(),
            max: scaling.max(),
            queue_requests: queue.max_requests(),
            queue_bytes: queue.max_bytes(),
            cold_start: timeouts.cold_start(),
            response: timeouts.response(),
            idle: timeouts.idle(),
            affinity: spec.rollout.as_ref().and_then(|rollout| rollout.affinity.as_ref()).and_then(AffinityKey::of),
            mirror: spec.mirror.as_ref().map(|m| MirrorTarget { tag: m.tag.as_str().into(), percent: m.percent() }),
            count_outcomes: spec.rollout.as_ref().is_some_and(|rollout| rollout.abort_on.is_some()),
            // The schema keeps the port in range; an object stored before that rule gets the default.
            port: u16::try_from(spec.port()).unwrap_or(8080),
            protocol: spec.protocol(),
            readiness_path: spec.readiness_path().map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::function::ScalingSpec;
    use rstest::rstest;

    #[test]
    fn the_admission_policy_of_the_chart_allows_as_many() {
        let policy = include_str!("../../../charts/rouse/templates/activator/admission-policy.yaml");
        assert!(policy.contains(&format!("object.spec.replicas <= {WAKE_REPLICAS_MAX}\n")));
    }

    #[rstest]
    #[case::default(None, None, 1)]
    #[case::min(Some(3), Some(4), 3)]
    #[case::max_wins(Some(9), Some(4), 4)]
    #[case::as_the_admission_policy_allows(Some(500), Some(1000), WAKE_REPLICAS_MAX)]
    fn a_wake_asks_for_one_pod_or_the_minimum(#[case] min: Option<i32>, #[case] max: Option<i32>, #[case] pods: u32) {
        let scaling = ScalingSpec { min, max, concurrency_limit: Some(1), ..ScalingSpec::default() };
        let policy = Policy::from(&FunctionSpec { scaling: Some(scaling), ..FunctionSpec::default() });
        assert_eq!(policy.wake_replicas(), pods);
    }
}
