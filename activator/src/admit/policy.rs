//! What a Function's spec says about its requests, in the form that the data path reads.

use std::time::Duration;

use http::HeaderName;
use rouse_crds::function::{Affinity, FunctionSpec, Metric, Protocol};

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

impl Policy {
    /// Pods to wake for `queued` requests: enough for all of them at the wanted load, within the bounds, never none.
    #[must_use]
    pub fn replicas_for(&self, queued: usize) -> u32 {
        let most = self.max.max(1);
        let wanted = (queued as f64 / self.target.max(1.0)).ceil();
        // A float that does not fit saturates, and the clamp takes it from there.
        (wanted as u32).clamp(self.min.clamp(1, most), most)
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

    #[rstest]
    #[case(1, 1)]
    #[case(70, 1)]
    #[case(71, 2)]
    #[case(1_000_000, 100)]
    fn a_crowd_wakes_enough_pods(#[case] queued: usize, #[case] pods: u32) {
        assert_eq!(Policy::from(&FunctionSpec::default()).replicas_for(queued), pods);
    }

    #[test]
    fn the_bounds_hold() {
        let scaling = ScalingSpec { min: Some(3), max: Some(4), concurrency_limit: Some(1), ..ScalingSpec::default() };
        let policy = Policy::from(&FunctionSpec { scaling: Some(scaling), ..FunctionSpec::default() });
        assert_eq!((policy.replicas_for(1), policy.replicas_for(9)), (3, 4));
    }
}
