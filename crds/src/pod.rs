//! The fields of a Pod that Rouse reads.
//!
//! The watch of function pods decodes into [`FunctionPod`] instead of the full Pod, which keeps a cache of thousands of
//! pods small.

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
    /// Name, labels, annotations and deletion timestamp.
    pub metadata: ObjectMeta,
    /// Ports and readiness probe of its container.
    #[serde(default)]
    pub spec: PodSpec,
    /// Status that the kubelet and the scheduler report.
    #[serde(default)]
    pub status: PodStatus,
}

/// Spec of a pod. A revision keeps its port when that of the Function changes, so the port is read from the pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Containers.
    pub containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Ports that it listens on.
    pub ports: Vec<ContainerPort>,
    /// Readiness probe.
    pub readiness_probe: Option<ReadinessProbe>,
}

/// A port of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name.
    pub name: Option<String>,
    /// Port number.
    pub container_port: u16,
}

/// Readiness probe of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessProbe {
    /// HTTP GET.
    pub http_get: Option<HttpGet>,
}

/// HTTP GET of a probe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpGet {
    /// Path.
    pub path: Option<String>,
}

/// Status of a pod, as the kubelet and the scheduler report it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: Option<String>,
    /// Reason why the pod failed, such as `Evicted`.
    pub reason: Option<String>,
    /// Details of the failure.
    pub message: Option<String>,
    /// Node on which the scheduler preempts pods for this one, or that is being provisioned for it.
    pub nominated_node_name: Option<String>,
    /// IP address, set when the sandbox exists.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// `PodScheduled`, `Ready`, …
    pub conditions: Vec<ObjectCondition>,
    /// Statuses of the containers.
    pub container_statuses: Vec<ContainerStatus>,
    /// Statuses of the init containers.
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// A condition of a pod or Deployment.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectCondition {
    /// Type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// Reason in CamelCase.
    pub reason: Option<String>,
    /// Details.
    pub message: Option<String>,
    /// Time of the last change of `status`.
    pub last_transition_time: Option<Time>,
}

/// Status of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Name.
    pub name: String,
    /// Number of restarts.
    pub restart_count: i32,
    /// Current state.
    pub state: ContainerState,
    /// State before the last restart.
    pub last_state: ContainerState,
}

/// State of a container. At most one field is set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerState {
    /// Not running: being created, or in backoff.
    pub waiting: Option<Waiting>,
    /// Running.
    pub running: Option<Running>,
    /// Terminated.
    pub terminated: Option<Terminated>,
}

/// Details of a waiting container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// Reason, such as `ImagePullBackOff`.
    pub reason: Option<String>,
    /// Details.
    pub message: Option<String>,
}

/// Details of a running container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// Start time.
    pub started_at: Option<Time>,
}

/// Details of a terminated container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// Exit status.
    pub exit_code: i32,
    /// Reason, such as `Error`, `OOMKilled` or `Completed`.
    pub reason: Option<String>,
    /// Details.
    pub message: Option<String>,
}

impl FunctionPod {
    /// Returns the value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// Returns the name of its Function.
    #[must_use]
    pub fn function(&self) -> Option<&str> {
        self.label(FUNCTION_LABEL)
    }

    /// Returns the name of its revision.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.label(REVISION_LABEL)
    }

    /// Returns the `uid` of its Function.
    #[must_use]
    pub fn function_uid(&self) -> Option<&str> {
        self.label(FUNCTION_UID_LABEL)
    }

    /// Returns the function's port, if the pod declares it.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let ports = &self.container()?.ports;
        ports.iter().find(|p| p.name.as_deref() == Some(CONTAINER_PORT)).map(|p| p.container_port)
    }

    /// Returns the path of the readiness probe, if it is an HTTP GET.
    #[must_use]
    pub fn readiness_path(&self) -> Option<&str> {
        self.container()?.readiness_probe.as_ref()?.http_get.as_ref()?.path.as_deref()
    }

    /// Returns the protocol of the function's container, if the pod declares it.
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

    /// Returns whether the pod must receive no new requests: it is being deleted, is a victim of a scale-down, or has
    /// ended.
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

    /// Returns whether all containers terminated for good (phase `Failed` or `Succeeded`).
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.status.phase.as_deref(), Some("Failed" | "Succeeded"))
    }

    /// Returns whether the kubelet reports the pod ready.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")
    }

    /// Returns the time when the pod was scheduled.
    #[must_use]
    pub fn scheduled_at(&self) -> Option<&Time> {
        let scheduled = self.status.conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "True")?;
        scheduled.last_transition_time.as_ref()
    }

    /// Returns the time since which every container is running: the latest of their start times.
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

/// Removes the fields that Rouse never reads, before a pod is cached.
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
    fn reads_port_probe_and_protocol() {
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
    fn pruning_keeps_the_fields_that_are_read() {
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
