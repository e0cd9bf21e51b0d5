//! The small part of a Pod that Rouse reads.
//!
//! A watch of all function pods decodes into [`FunctionPod`] and not into the whole Pod, so that the cache of a process that
//! follows thousands of pods stays small.

mod failure;

pub use failure::{Ended, PodFailure, UNSCHEDULABLE};

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource, core::NamespaceResourceScope};
use serde::{Deserialize, Serialize};

use crate::{
    function::Protocol,
    names::{
        CONTAINER, CONTAINER_PORT, FUNCTION_LABEL, FUNCTION_UID_LABEL, POD_DELETION_COST_ANNOTATION,
        PROTOCOL_ANNOTATION, REVISION_LABEL,
    },
};

/// A Pod with the fields that Rouse reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FunctionPod {
    /// Name, labels, annotations, deletion.
    pub metadata: ObjectMeta,
    /// Where its container listens, and how to tell that it does.
    #[serde(default)]
    pub spec: PodSpec,
    /// What the kubelet and the scheduler say.
    #[serde(default)]
    pub status: PodStatus,
}

/// What a pod was asked to be. A revision keeps its port when the Function moves to another one, so the port is read from
/// the pod itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Its containers.
    pub containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Ports that it listens on.
    pub ports: Vec<ContainerPort>,
    /// How kubelet tells that it can take requests.
    pub readiness_probe: Option<ReadinessProbe>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Its name.
    pub name: Option<String>,
    /// The number.
    pub container_port: u16,
}

/// How kubelet tells that a container can take requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessProbe {
    /// By a GET.
    pub http_get: Option<HttpGet>,
}

/// A GET that tells whether a container can take requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpGet {
    /// Its path.
    pub path: Option<String>,
}

/// What the kubelet and the scheduler say of a pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: Option<String>,
    /// Why the pod as a whole failed, such as `Evicted`.
    pub reason: Option<String>,
    /// More of it.
    pub message: Option<String>,
    /// A node that it is to get: others make room for it there, or the node itself is on its way.
    pub nominated_node_name: Option<String>,
    /// Its address, once the sandbox is there.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// `PodScheduled`, `Ready`, …
    pub conditions: Vec<ObjectCondition>,
    /// Of the containers.
    pub container_statuses: Vec<ContainerStatus>,
    /// Of the init containers.
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// A condition of a pod, or of a Deployment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// A word.
    pub reason: Option<String>,
    /// A sentence.
    pub message: Option<String>,
    /// Since when.
    pub last_transition_time: Option<Time>,
}

/// What the kubelet says of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// How often it was started again.
    pub restart_count: i32,
    /// Where it is now.
    pub state: ContainerState,
    /// Where it was before its last restart.
    pub last_state: ContainerState,
}

/// Where a container is; at most one is set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerState {
    /// Not running yet, or held back.
    pub waiting: Option<Waiting>,
    /// Running.
    pub running: Option<Running>,
    /// Over.
    pub terminated: Option<Terminated>,
}

/// Why a container does not run yet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// A word such as `ImagePullBackOff`.
    pub reason: Option<String>,
    /// A sentence.
    pub message: Option<String>,
}

/// Since when a container runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// The moment.
    pub started_at: Option<Time>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// Exit status.
    pub exit_code: i32,
    /// A word such as `Error`, `OOMKilled`, `Completed`.
    pub reason: Option<String>,
    /// A sentence.
    pub message: Option<String>,
}

impl FunctionPod {
    /// Value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// Name of the Function it belongs to.
    #[must_use]
    pub fn function(&self) -> Option<&str> {
        self.label(FUNCTION_LABEL)
    }

    /// Name of the revision it belongs to.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.label(REVISION_LABEL)
    }

    /// `uid` of the Function it belongs to.
    #[must_use]
    pub fn function_uid(&self) -> Option<&str> {
        self.label(FUNCTION_UID_LABEL)
    }

    /// The port that the function listens on in this pod, if the pod says it.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let ports = &self.container()?.ports;
        ports.iter().find(|p| p.name.as_deref() == Some(CONTAINER_PORT)).map(|p| p.container_port)
    }

    /// Path of the GET by which kubelet tells that the function can take requests, if it does so by a GET.
    #[must_use]
    pub fn readiness_path(&self) -> Option<&str> {
        self.container()?.readiness_probe.as_ref()?.http_get.as_ref()?.path.as_deref()
    }

    /// What the function speaks in this pod, if the pod says it.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        match self.metadata.annotations.as_ref()?.get(PROTOCOL_ANNOTATION)?.as_str() {
            "http1" => Some(Protocol::Http1),
            "h2c" => Some(Protocol::H2c),
            _ => None,
        }
    }

    fn container(&self) -> Option<&Container> {
        self.spec.containers.iter().find(|c| c.name == CONTAINER)
    }

    /// Whether it must get no new request: it is being deleted, is chosen to go, or has ended.
    #[must_use]
    pub fn draining(&self) -> bool {
        let marked = self
            .metadata
            .annotations
            .as_ref()
            .and_then(|a| a.get(POD_DELETION_COST_ANNOTATION))
            .is_some_and(|cost| cost.starts_with('-'));
        self.metadata.deletion_timestamp.is_some() || marked || self.ended()
    }

    /// Whether its containers are all over and will not come back.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Failed" | "Succeeded"))
    }

    /// Whether the kubelet has found it ready.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    }

    /// When the scheduler found a node for it.
    #[must_use]
    pub fn scheduled_at(&self) -> Option<&Time> {
        let scheduled = self.status.conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "True")?;
        scheduled.last_transition_time.as_ref()
    }

    /// Since when every container runs; the latest start of them.
    #[must_use]
    pub fn running_since(&self) -> Option<&Time> {
        let starts: Option<Vec<_>> = self
            .status
            .container_statuses
            .iter()
            .map(|c| c.state.running.as_ref().and_then(|r| r.started_at.as_ref()))
            .collect();
        starts?.into_iter().max_by_key(|t| t.0)
    }
}

impl Resource for FunctionPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        "Pod".into()
    }

    fn group(_: &()) -> Cow<'_, str> {
        "".into()
    }

    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(_: &()) -> Cow<'_, str> {
        "pods".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Takes from a pod what Rouse never reads, before it is cached.
pub fn prune(pod: &mut FunctionPod) {
    pod.metadata.managed_fields = None;
    pod.metadata.owner_references = None;
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|name, _| name == POD_DELETION_COST_ANNOTATION || name == PROTOCOL_ANNOTATION);
    }
    pod.spec.containers.retain(|c| c.name == CONTAINER);
    let wanted = [FUNCTION_LABEL, REVISION_LABEL, FUNCTION_UID_LABEL];
    if let Some(labels) = &mut pod.metadata.labels {
        *labels = std::mem::take(labels)
            .into_iter()
            .filter(|(n, _)| wanted.contains(&n.as_str()))
            .collect::<BTreeMap<_, _>>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!({}), json!({}), false)]
    #[case(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), json!({}), true)]
    #[case(json!({"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}), json!({}), true)]
    #[case(json!({"annotations": {"controller.kubernetes.io/pod-deletion-cost": "10"}}), json!({}), false)]
    #[case(json!({}), json!({"phase": "Failed"}), true)]
    fn draining(#[case] metadata: serde_json::Value, #[case] status: serde_json::Value, #[case] expected: bool) {
        let pod: FunctionPod = serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap();
        assert_eq!(pod.draining(), expected);
    }

    #[test]
    fn a_pod_says_where_it_listens() {
        let pod: FunctionPod = serde_json::from_value(json!({
            "metadata": {"annotations": {"rouse.dev/protocol": "h2c"}},
            "spec": {"containers": [
                {"name": "sidecar", "ports": [{"name": "function", "containerPort": 1}]},
                {"name": "function", "ports": [{"containerPort": 9}, {"name": "function", "containerPort": 9000}],
                 "readinessProbe": {"httpGet": {"path": "/ok", "port": "function"}}},
            ]},
        }))
        .unwrap();
        assert_eq!((pod.port(), pod.readiness_path(), pod.protocol()), (Some(9000), Some("/ok"), Some(Protocol::H2c)));
        assert_eq!((FunctionPod::default().port(), FunctionPod::default().protocol()), (None, None));
    }

    #[test]
    fn pruning_keeps_what_is_read() {
        let mut pod: FunctionPod = serde_json::from_value(json!({"metadata": {
            "labels": {"rouse.dev/function": "f", "team": "x"},
            "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5", "note": "x"},
        }}))
        .unwrap();
        prune(&mut pod);
        assert_eq!(pod.function(), Some("f"));
        assert_eq!(pod.label("team"), None);
        assert!(pod.draining());
    }
}
