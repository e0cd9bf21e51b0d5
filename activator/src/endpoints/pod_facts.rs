//! The state of a pod that the watch reports, as far as a breaker reads it.

use std::net::IpAddr;

use rouse_crds::{
    function::Protocol,
    pod::{Ended, FunctionPod, PodFailure, ReadinessCheck},
};

/// The state of a pod that the watch reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Name and uid: a pod recreated under the same name is another pod.
    pub id: Box<str>,
    /// Its revision.
    pub revision: Box<str>,
    /// Its IP address, once it has a valid one of its own.
    pub ip: Option<IpAddr>,
    /// The port that the pod declares, if it does.
    pub port: Option<u16>,
    /// The protocol that the pod declares, if it does.
    pub protocol: Option<Protocol>,
    /// How it is found ready before the kubelet reports it, if the pod declares it.
    pub readiness: Option<ReadinessCheck>,
    /// It was scheduled to a node.
    pub scheduled: bool,
    /// The kubelet reports it as ready.
    pub ready: bool,
    /// It is being removed, and must get no new requests.
    pub draining: bool,
    /// Why it does not serve, if that is known.
    pub failure: Option<PodFailure>,
    /// Whether its container has ended.
    pub ended: Ended,
    /// Number of restarts of its containers.
    pub restarts: i32,
}

impl PodFacts {
    /// Reads a pod of the given revision.
    #[must_use]
    pub fn of(pod: &FunctionPod, revision: &str) -> Self {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        // The address of a pod on the network of its node is the node's.
        let ip = pod.status.pod_ip.as_deref().filter(|_| !pod.spec.host_network);
        Self {
            id: format!("{name}/{uid}").into(),
            revision: revision.into(),
            ip: ip.and_then(|ip| ip.parse().ok()),
            port: pod.port(),
            protocol: pod.protocol(),
            readiness: pod.readiness_check(),
            scheduled: pod.scheduled_at().is_some(),
            ready: pod.ready(),
            draining: pod.draining(),
            failure: pod.failure(),
            ended: pod.container_ended(),
            restarts: pod.restarts(),
        }
    }
}
