//! What a Function's spec says about its requests, in the form that the data path reads.

use std::time::Duration;

use http::HeaderName;
use rouse_crds::function::{Affinity, FunctionSpec, Metric, Protocol};

/// By what callers are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TellApart {
    /// A cookie of this name, which is set with the answer.
    Cookie(Box<str>),
    /// The value of this header.
    Header(HeaderName),
}

/// Where copies of requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorTo {
    /// A tag.
    pub tag: Box<str>,
    /// Of so many in a hundred.
    pub percent: u32,
}

/// What a Function's spec says about its requests. Replaced as a whole when the spec changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Most requests in one pod at once; `None` is no limit.
    pub limit: Option<u32>,
    /// Requests that one pod is wanted for when a crowd wakes the function.
    pub target: f64,
    /// Fewest pods.
    pub min: u32,
    /// Most pods.
    pub max: u32,
    /// Most requests that wait here.
    pub queue_requests: u32,
    /// Most bytes of requests that wait here.
    pub queue_bytes: u64,
    /// How long a request waits for a pod.
    pub cold_start: Duration,
    /// How long a pod may take to the head of its answer.
    pub response: Duration,
    /// How long neither side may send a byte.
    pub idle: Option<Duration>,
    /// What keeps a caller at one revision while calls are split.
    pub affinity: Option<TellApart>,
    /// Where copies of requests go.
    pub mirror: Option<MirrorTo>,
    /// How requests end is counted, because a roll-out is judged by it.
    pub judged: bool,
    /// Port of the container, where the pod does not say it.
    pub port: u16,
    /// What the container speaks, where the pod does not say it.
    pub protocol: Protocol,
    /// Path of the HTTP readiness check, where the pod does not say it.
    pub readiness_path: Option<String>,
}

impl Policy {
    /// Pods to wake a revision with: one, or `scaling.min`. How many more a queue needs depends on how long a request takes,
    /// which the autoscaler knows; a thousand requests of ten milliseconds are one second of work for a pod that takes ten at
    /// once.
    #[must_use]
    pub fn wake_replicas(&self) -> u32 {
        self.min.clamp(1, self.max.max(1))
    }
}

impl TellApart {
    /// As the spec says. The schema keeps names such as can be; another one tells nobody apart.
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
            affinity: spec.rollout.as_ref().and_then(|rollout| rollout.affinity.as_ref()).and_then(TellApart::of),
            mirror: spec.mirror.as_ref().map(|m| MirrorTo { tag: m.tag.as_str().into(), percent: m.percent() }),
            judged: spec.rollout.as_ref().is_some_and(|rollout| rollout.abort_on.is_some()),
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
    #[case::default(None, None, 1)]
    #[case::min(Some(3), Some(4), 3)]
    #[case::max_wins(Some(9), Some(4), 4)]
    fn a_wake_asks_for_one_pod_or_the_minimum(#[case] min: Option<i32>, #[case] max: Option<i32>, #[case] pods: u32) {
        let scaling = ScalingSpec { min, max, concurrency_limit: Some(1), ..ScalingSpec::default() };
        let policy = Policy::from(&FunctionSpec { scaling: Some(scaling), ..FunctionSpec::default() });
        assert_eq!(policy.wake_replicas(), pods);
    }
}
