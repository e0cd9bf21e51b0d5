//! Failure of a pod: why it cannot serve requests.

use super::{ContainerState, ContainerStatus, FunctionPod, Terminated};
use crate::names::CONTAINER;

/// Why a pod cannot serve, with the reason of the kubelet or the scheduler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodFailure {
    /// Reason in CamelCase, such as `ErrImagePull` or `CrashLoopBackOff`.
    pub reason: String,
    /// Details for people.
    pub message: String,
}

/// Whether a container of a pod terminated unexpectedly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// No container did.
    #[default]
    Never,
    /// A container did, and is running again or in backoff.
    Before,
    /// A container did, and was not restarted yet.
    Now,
}

/// Reason of a [`PodFailure`]: no node has sufficient capacity.
pub const UNSCHEDULABLE: &str = "Unschedulable";

/// Reason of a [`PodFailure`]: the pod uses the network of its node, so its port may be any program's on the node.
pub const HOST_NETWORK: &str = "HostNetwork";

/// Waiting reasons of a container that count as a failure. `ContainerCreating` and `PodInitializing` do not.
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
    /// Returns why the pod cannot serve, if known: its image cannot be pulled, its container cannot be created or
    /// exited, no node has capacity, it was evicted, or it uses the network of its node.
    #[must_use]
    pub fn failure(&self) -> Option<PodFailure> {
        let status = &self.status;
        if self.spec.host_network {
            return Some(PodFailure {
                reason: HOST_NETWORK.to_owned(),
                message: "The pod has hostNetwork: true, so its address is the node's, and requests could reach any \
                          program of the node; Rouse sends it none. Remove hostNetwork from spec.podTemplate, or from \
                          the admission webhook that sets it"
                    .to_owned(),
            });
        }
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

    /// Returns whether a container terminated unexpectedly.
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
        let terminated = self.state.terminated.as_ref().filter(|end| self.is_unexpected(end))?;
        let reason = terminated.reason.clone().unwrap_or_else(|| "Error".to_owned());
        Some(PodFailure { reason, message: self.sentence(&terminated.sentence()) })
    }

    /// A completed init container or sidecar is no failure. The function's container must not terminate at all.
    fn is_unexpected(&self, end: &Terminated) -> bool {
        end.exit_code != 0 || self.name == CONTAINER
    }

    fn ended(&self) -> Ended {
        let unexpected = |state: &ContainerState| state.terminated.as_ref().is_some_and(|end| self.is_unexpected(end));
        match (unexpected(&self.state), unexpected(&self.last_state)) {
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
    fn failure_of_a_container(#[case] state: serde_json::Value, #[case] expected: Option<(&str, &str)>) {
        let pod = pod(
            &json!({"phase": "Pending", "containerStatuses": [{"name": "function", "restartCount": 0, "state": state}]}),
        );
        assert_eq!(pod.failure().map(|f| (f.reason, f.message)), expected.map(|(r, m)| (r.to_owned(), m.to_owned())));
    }

    #[test]
    fn crash_loop_reports_the_exit_status() {
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
    fn unschedulable_pod_reports_the_message_of_the_scheduler() {
        let pod = pod(
            &json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}),
        );
        assert_eq!(pod.failure().unwrap(), PodFailure { reason: "Unschedulable".into(), message: "0/1 nodes".into() });
    }

    #[test]
    fn nominated_pod_is_no_failure() {
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
    fn unexpected_termination(#[case] status: serde_json::Value, #[case] expected: Ended) {
        let mut function = json!({"name": "function", "restartCount": 1});
        function.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        let done = json!({"name": "migrate", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let pod = pod(&json!({"initContainerStatuses": [done], "containerStatuses": [function]}));
        assert_eq!(pod.container_ended(), expected);
    }
}
