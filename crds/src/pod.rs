//! The small part of a Pod that Rouse reads, and what is wrong with a pod that does not start.
//!
//! A watch of all function pods decodes into [`FunctionPod`] and not into the whole Pod, so that the cache of a process that
//! follows thousands of pods stays small.

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
    pub conditions: Vec<PodCondition>,
    /// Of the containers.
    pub container_statuses: Vec<ContainerStatus>,
    /// Of the init containers.
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
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

/// Why a pod will not serve, in the kubelet's or the scheduler's own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFailure {
    /// A word in PascalCase such as `ErrImagePull` or `CrashLoopBackOff`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// Whether a container of a pod has ended that was not meant to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// None has.
    #[default]
    Never,
    /// One has, and runs again or is held back.
    Before,
    /// One has, and was not started again yet.
    Now,
}

/// Reason of a [`PodFailure`]: the scheduler finds no node.
pub const UNSCHEDULABLE: &str = "Unschedulable";

/// Reasons of a waiting container that will not pass by themselves soon. `ContainerCreating` and `PodInitializing` are
/// not among them.
const FATAL_WAITING: [&str; 9] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "RegistryUnavailable",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

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

    /// Why it will not serve, if that is known: its image cannot be had, its container cannot be made or has exited, the
    /// scheduler finds no node, or it was evicted.
    #[must_use]
    pub fn failure(&self) -> Option<PodFailure> {
        let status = &self.status;
        if status.phase.as_deref() == Some("Failed") {
            let reason = status.reason.clone().unwrap_or_else(|| "PodFailed".to_owned());
            return Some(PodFailure { reason, message: status.message.clone().unwrap_or_default() });
        }
        let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
        if let Some(failure) = containers.filter_map(ContainerStatus::failure).next() {
            return Some(failure);
        }
        let unscheduled = status.conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
        let nominated = status.nominated_node_name.as_ref().is_some_and(|node| !node.is_empty());
        (unscheduled.reason.as_deref() == Some(UNSCHEDULABLE) && !nominated).then(|| PodFailure {
            reason: UNSCHEDULABLE.to_owned(),
            message: unscheduled.message.clone().unwrap_or_default(),
        })
    }

    /// Whether a container has ended that was not meant to.
    #[must_use]
    pub fn container_ended(&self) -> Ended {
        let containers = self.status.init_container_statuses.iter().chain(&self.status.container_statuses);
        containers.map(ContainerStatus::ended).max().unwrap_or_default()
    }
}

impl ContainerStatus {
    fn failure(&self) -> Option<PodFailure> {
        if let Some(waiting) = &self.state.waiting {
            let reason = waiting.reason.as_deref().unwrap_or_default();
            if reason == "CrashLoopBackOff" {
                let end = self.last_state.terminated.as_ref().map(Terminated::sentence).unwrap_or_default();
                return Some(PodFailure { reason: reason.to_owned(), message: self.sentence(&end) });
            }
            return FATAL_WAITING.contains(&reason).then(|| PodFailure {
                reason: reason.to_owned(),
                message: self.sentence(waiting.message.as_deref().unwrap_or_default()),
            });
        }
        let terminated = self.state.terminated.as_ref().filter(|end| self.unmeant(end))?;
        let reason = terminated.reason.clone().unwrap_or_else(|| "Error".to_owned());
        Some(PodFailure { reason, message: self.sentence(&terminated.sentence()) })
    }

    /// An init container that is done, or a sidecar-like container that ended well, is not a failure; the function's own
    /// container is not meant to end at all.
    fn unmeant(&self, end: &Terminated) -> bool {
        end.exit_code != 0 || self.name == CONTAINER
    }

    fn ended(&self) -> Ended {
        let unmeant = |state: &ContainerState| state.terminated.as_ref().is_some_and(|end| self.unmeant(end));
        match (unmeant(&self.state), unmeant(&self.last_state)) {
            (true, _) => Ended::Now,
            (false, true) => Ended::Before,
            (false, false) => Ended::Never,
        }
    }

    fn sentence(&self, detail: &str) -> String {
        format!("container {}: {detail}", self.name)
    }
}

impl Terminated {
    fn sentence(&self) -> String {
        let mut text = format!("exited with status {}", self.exit_code);
        if let Some(reason) = self.reason.as_deref().filter(|r| *r != "Error") {
            text.push_str(&format!(" ({reason})"));
        }
        if let Some(message) = self.message.as_deref().filter(|m| !m.is_empty()) {
            text.push_str(&format!(": {message}"));
        }
        text
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

    fn pod(status: &serde_json::Value) -> FunctionPod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    #[rstest]
    #[case::creating(json!({"waiting": {"reason": "ContainerCreating"}}), None)]
    #[case::pull(json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}}), Some(("ErrImagePull", "container function: not found")))]
    #[case::bad_config(json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"x\" not found"}}), Some(("CreateContainerConfigError", "container function: secret \"x\" not found")))]
    #[case::exited(json!({"terminated": {"exitCode": 3, "reason": "Error"}}), Some(("Error", "container function: exited with status 3")))]
    #[case::killed(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), Some(("OOMKilled", "container function: exited with status 137 (OOMKilled)")))]
    #[case::done(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}), Some(("Completed", "container function: exited with status 0 (Completed)")))]
    #[case::running(json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}}), None)]
    fn of_a_container(#[case] state: serde_json::Value, #[case] expected: Option<(&str, &str)>) {
        let pod = pod(
            &json!({"phase": "Pending", "containerStatuses": [{"name": "function", "restartCount": 0, "state": state}]}),
        );
        assert_eq!(pod.failure().map(|f| (f.reason, f.message)), expected.map(|(r, m)| (r.to_owned(), m.to_owned())));
    }

    #[test]
    fn a_crash_loop_says_how_it_ended() {
        let pod = pod(&json!({"phase": "Running", "containerStatuses": [{
            "name": "function", "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s"}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
        }]}));
        let failure = pod.failure().unwrap();
        assert_eq!(
            (failure.reason.as_str(), failure.message.as_str()),
            ("CrashLoopBackOff", "container function: exited with status 1")
        );
    }

    #[test]
    fn an_unschedulable_pod_says_why() {
        let pod = pod(
            &json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}),
        );
        assert_eq!(pod.failure().unwrap(), PodFailure { reason: "Unschedulable".into(), message: "0/1 nodes".into() });
    }

    #[test]
    fn a_pod_that_is_to_get_a_node_is_waited_for() {
        let pod = pod(
            &json!({"phase": "Pending", "nominatedNodeName": "node-7", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}),
        );
        assert_eq!(pod.failure(), None);
    }

    #[rstest]
    #[case::runs(json!({"state": {"running": {}}}), Ended::Never)]
    #[case::ended(json!({"state": {"terminated": {"exitCode": 1}}}), Ended::Now)]
    #[case::ended_again(json!({"state": {"terminated": {"exitCode": 1}}, "lastState": {"terminated": {"exitCode": 1}}}), Ended::Now)]
    #[case::held_back(json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}}), Ended::Before)]
    #[case::runs_again(json!({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 0}}}), Ended::Before)]
    fn whether_a_container_has_ended(#[case] status: serde_json::Value, #[case] expected: Ended) {
        let mut function = json!({"name": "function", "restartCount": 1});
        function.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        let done = json!({"name": "migrate", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let pod = pod(&json!({"initContainerStatuses": [done], "containerStatuses": [function]}));
        assert_eq!(pod.container_ended(), expected);
    }

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
