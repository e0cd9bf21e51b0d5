//! What the watch says of a pod, in the form that a gate reads.

use std::net::IpAddr;

use rouse_crds::{
    function::Protocol,
    pod::{Ended, FunctionPod, PodFailure},
};

/// What the watch says of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFacts {
    /// Its name and uid: a pod made again under the same name is another pod.
    pub id: Box<str>,
    /// The revision it belongs to.
    pub revision: Box<str>,
    /// Its address, once it has one that can be read.
    pub ip: Option<IpAddr>,
    /// Where it listens, if it says so.
    pub port: Option<u16>,
    /// What it speaks, if it says so.
    pub protocol: Option<Protocol>,
    /// Path of its readiness check, if it has one by HTTP.
    pub readiness_path: Option<Box<str>>,
    /// It has a node.
    pub scheduled: bool,
    /// kubelet has found it ready.
    pub ready: bool,
    /// It must get nothing new.
    pub draining: bool,
    /// Why it will not serve, if that is known.
    pub failure: Option<PodFailure>,
    /// Whether its container has ended.
    pub ended: Ended,
}

impl PodFacts {
    /// The facts of a pod of the given revision.
    #[must_use]
    pub fn of(pod: &FunctionPod, revision: &str) -> Self {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        Self {
            id: format!("{name}/{uid}").into(),
            revision: revision.into(),
            ip: pod.status.pod_ip.as_deref().and_then(|ip| ip.parse().ok()),
            port: pod.port(),
            protocol: pod.protocol(),
            readiness_path: pod.readiness_path().map(Into::into),
            scheduled: pod.scheduled_at().is_some(),
            ready: pod.ready(),
            draining: pod.draining(),
            failure: pod.failure(),
            ended: pod.container_ended(),
        }
    }
}
