//! The fields of a Pod that Rouse reads.
//!
//! The watch of function pods decodes into [`FunctionPod`] instead of the full Pod, which keeps a cache of thousands of
//! pods small.

mod cause;
mod failure;
mod readiness;

pub use cause::Cause;
pub use failure::{Ended, HOST_NETWORK, PodFailure, UNSCHEDULABLE};
pub use readiness::{ContainerProbe, GrpcHealth, HttpGet, Present, ProbePort, ReadinessCheck, TcpSocket};

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::{Resource, core::NamespaceResourceScope};
use serde::{Deserialize, Serialize};

use crate::{
    function::Protocol,
    names::{
        CONTAINER, CONTAINER_PORT, FUNCTION_LABEL, FUNCTION_UID_LABEL, POD_DELETION_COST_ANNOTATION,
        POD_TEMPLATE_HASH_LABEL, PORT_ANNOTATION, PROTOCOL_ANNOTATION, READINESS_ANNOTATION, REVISION_LABEL,
    },
};

/// A Pod with the fields that Rouse reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FunctionPod {
    /// Name, labels, annotations and deletion timestamp.
    pub metadata: ObjectMeta,
    /// Network, containers and readiness gates.
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
    /// The pod has the network and the address of its node.
    pub host_network: bool,
    /// Containers.
    pub containers: Vec<Container>,
    /// Init containers, and sidecars that are started like them.
    pub init_containers: Vec<Container>,
    /// Conditions that other controllers set before the pod is ready. Only their presence is read.
    pub readiness_gates: Vec<Present>,
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
    pub readiness_probe: Option<ContainerProbe>,
    /// Startup probe, without whose success the container is not ready.
    pub startup_probe: Option<ContainerProbe>,
    /// Hooks.
    pub lifecycle: Option<Lifecycle>,
}

/// Hooks of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lifecycle {
    /// Hook without whose success the container is not ready. Only its presence is read.
    pub post_start: Option<Present>,
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

    /// Returns whether the pod belongs to its revision: its controller is the ReplicaSet of the Deployment with the name of
    /// the revision, which the operator created. Labels alone are not enough: a copy of a pod has them too.
    ///
    /// The Deployment controller names a ReplicaSet `{Deployment}-{pod-template-hash}`, and labels its pods with the hash.
    #[must_use]
    pub fn is_of_its_revision(&self) -> bool {
        let name = || Some(format!("{}-{}", self.revision()?, self.label(POD_TEMPLATE_HASH_LABEL)?));
        controller(&self.metadata).is_some_and(|owner| {
            owner.kind == "ReplicaSet" && owner.api_version.starts_with("apps/") && Some(&owner.name) == name().as_ref()
        })
    }

    /// Returns the function's port, if the pod declares it.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.annotation(PORT_ANNOTATION).and_then(|port| port.parse().ok()).or_else(|| self.spec.port())
    }

    /// Returns the protocol of the function's container, if the pod declares it.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        match self.annotation(PROTOCOL_ANNOTATION)? {
            "http1" => Some(Protocol::Http1),
            "h2c" => Some(Protocol::H2c),
            _ => None,
        }
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Returns the number of restarts of all containers.
    #[must_use]
    pub fn restarts(&self) -> i32 {
        let containers = self.status.init_container_statuses.iter().chain(&self.status.container_statuses);
        containers.fold(0, |all, container| all.saturating_add(container.restart_count))
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

impl PodSpec {
    fn port(&self) -> Option<u16> {
        let ports = &self.function_container()?.ports;
        ports.iter().find(|p| p.name.as_deref() == Some(CONTAINER_PORT)).map(|p| p.container_port)
    }

    fn function_container(&self) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == CONTAINER)
    }

    fn other_containers(&self) -> impl Iterator<Item = &Container> {
        self.init_containers.iter().chain(self.containers.iter().filter(|c| c.name != CONTAINER))
    }
}

/// Returns the owner that is the controller.
fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
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

/// Labels that Rouse reads.
const LABELS: [&str; 4] = [FUNCTION_LABEL, REVISION_LABEL, FUNCTION_UID_LABEL, POD_TEMPLATE_HASH_LABEL];

/// Annotations that Rouse reads.
const ANNOTATIONS: [&str; 4] =
    [POD_DELETION_COST_ANNOTATION, PROTOCOL_ANNOTATION, PORT_ANNOTATION, READINESS_ANNOTATION];

/// Removes the fields that Rouse never reads, before a pod is cached.
pub fn prune(pod: &mut FunctionPod) {
    pod.metadata.managed_fields = None;
    pod.metadata.owner_references = controller(&pod.metadata).cloned().map(|owner| vec![owner]);
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.retain(|name, _| ANNOTATIONS.contains(&name.as_str()));
    }
    if let Some(labels) = &mut pod.metadata.labels {
        labels.retain(|name, _| LABELS.contains(&name.as_str()));
    }
    pod.spec.containers.retain(|c| c.name == CONTAINER || c.decides_readiness());
    pod.spec.init_containers.retain(Container::decides_readiness);
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
        let check = ReadinessCheck::Http("/ok".into());
        assert_eq!((pod.port(), pod.readiness_check(), pod.protocol()), (Some(9000), Some(check), Some(Protocol::H2c)));
        assert_eq!((FunctionPod::default().port(), FunctionPod::default().protocol()), (None, None));
        // The annotation is not rewritten by admission webhooks.
        let mut pod = pod;
        pod.metadata.annotations = Some([(PORT_ANNOTATION.to_owned(), "9001".to_owned())].into());
        assert_eq!(pod.port(), Some(9001));
    }

    #[rstest]
    #[case::of_the_deployment(json!({}), json!({}), true)]
    #[case::of_another_deployment(json!({}), json!({"name": "g-00001-5d9f"}), false)]
    #[case::of_another_template(json!({"pod-template-hash": "77c6"}), json!({}), false)]
    #[case::without_a_template(json!({"pod-template-hash": null}), json!({}), false)]
    #[case::of_another_revision(json!({"rouse.dev/revision": "f-00002"}), json!({}), false)]
    #[case::of_a_job(json!({}), json!({"kind": "Job", "apiVersion": "batch/v1"}), false)]
    #[case::of_another_group(json!({}), json!({"apiVersion": "example.org/v1"}), false)]
    #[case::no_controller(json!({}), json!({"controller": false}), false)]
    fn ownership(#[case] labels: serde_json::Value, #[case] owner: serde_json::Value, #[case] expected: bool) {
        let mut metadata = json!({
            "labels": {"rouse.dev/function": "f", "rouse.dev/revision": "f-00001", "pod-template-hash": "5d9f", "team": "x"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "f-00001-5d9f", "uid": "u", "controller": true}],
        });
        for (path, changes) in [("/labels", &labels), ("/ownerReferences/0", &owner)] {
            // A label of null is none.
            let field = metadata.pointer_mut(path).unwrap().as_object_mut().unwrap();
            field.extend(changes.as_object().unwrap().clone());
            field.retain(|_, value| !value.is_null());
        }
        let mut pod: FunctionPod = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        prune(&mut pod);
        assert_eq!(pod.is_of_its_revision(), expected);
        pod.metadata.owner_references = None;
        assert!(!pod.is_of_its_revision(), "a bare pod with the labels");
    }

    #[test]
    fn pruning_keeps_the_fields_that_are_read() {
        let mut pod: FunctionPod = serde_json::from_value(json!({"metadata": {
            "labels": {"rouse.dev/function": "f", "team": "x"},
            "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5", "note": "x"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}],
        }}))
        .unwrap();
        prune(&mut pod);
        assert_eq!(pod.metadata.owner_references, None, "no controller");
        assert_eq!(pod.function(), Some("f"));
        assert_eq!(pod.label("team"), None);
        assert!(pod.draining());
    }
}
