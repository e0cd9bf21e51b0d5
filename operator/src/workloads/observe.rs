//! What the pods and Deployments of a Function say. Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rouse_crds::{
    conditions::{NEVER_LISTENED, NEVER_STARTED, POD_CREATION_FAILED},
    pod::{FunctionPod, PodFailure, UNSCHEDULABLE},
};

use super::Workloads;
use crate::cluster::children::DeploymentObject;

/// The state of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevisionState {
    /// Pods asked for.
    pub desired: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// Why none of its pods serves, if that is known.
    pub failure: Option<PodFailure>,
    /// How much longer a failure that is the cluster's and not the revision's is to be borne: it may pass. No node has room,
    /// the node put the pod out, or a quota is used up.
    pub passing: Option<Duration>,
    /// After how long a pod that runs and is not ready will count as one that never listens, or a failure will have lasted.
    pub look_again: Option<Duration>,
}

/// Looks at `revision` at the time `now` of the cluster's clocks. `cold_start` is how long a pod may take.
pub fn revision(workloads: &Workloads, revision: &str, cold_start: Duration, now: Timestamp) -> RevisionState {
    let Some(deployment) = workloads.deployments.get(revision) else { return RevisionState::default() };
    let mut pods: Vec<_> = workloads.pods.iter().filter(|pod| pod.revision() == Some(revision)).map(|p| &**p).collect();
    // A pod that has ended (evicted, say) stays as an object for long. It speaks only while one is wanted and none lives.
    let alive = pods.iter().any(|pod| !pod.ended());
    pods.retain(|pod| !pod.ended() || (!alive && deployment.desired() > 0));
    let mut state =
        RevisionState { desired: deployment.desired(), ready: deployment.ready(), ..RevisionState::default() };
    if state.ready > 0 || pods.iter().any(|pod| pod.ready()) {
        return state;
    }
    let left = |since: Timestamp| {
        let lasted = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        Some(cold_start.saturating_sub(lasted)).filter(|left| !left.is_zero())
    };
    if let Some((pod, failure)) = pods.iter().find_map(|pod| Some((pod, pod.failure()?))) {
        state.passing = since_when(pod, &failure).and_then(left);
        state.failure = Some(failure);
    }
    for pod in &pods {
        let (left, failure) = match unheard(pod, cold_start, now) {
            Some(left) => (Some(left), never_listened(cold_start)),
            None => (unstarted(pod, cold_start, now), never_started(pod, cold_start)),
        };
        match left {
            Some(Duration::ZERO) if state.failure.is_none() => state.failure = Some(failure),
            Some(left) => state.look_again = Some(state.look_again.map_or(left, |other| other.min(left))),
            None => {}
        }
    }
    if state.failure.is_none()
        && pods.is_empty()
        && state.desired > 0
        && let Some((failure, since)) = not_made(deployment)
    {
        state.failure = Some(failure);
        state.passing = since.and_then(left);
    }
    state.look_again = [state.look_again, state.passing].into_iter().flatten().filter(|left| !left.is_zero()).min();
    state
}

/// Since when a pod has failed by the cluster's doing; `None` if it is its own.
fn since_when(pod: &FunctionPod, failure: &PodFailure) -> Option<Timestamp> {
    // A kubelet that ends a pod says why for the pod, and not for a container.
    let put_out = pod.status.phase.as_deref() == Some("Failed") && pod.status.reason.is_some();
    let changed = || pod.status.conditions.iter().filter_map(|c| c.last_transition_time.as_ref()).map(|t| t.0).max();
    (put_out || failure.reason == UNSCHEDULABLE).then(changed).flatten()
}

/// Why pods that are wanted cannot be made now, if that is so of any revision.
pub fn pods_refused(workloads: &Workloads) -> Option<PodFailure> {
    workloads.deployments.iter().find_map(|(revision, deployment)| {
        let none = !workloads.pods.iter().any(|pod| pod.revision() == Some(revision));
        Some((none && deployment.desired() > 0).then(|| not_made(deployment)).flatten()?.0)
    })
}

/// What a Deployment says of pods that could not be made, and since when: a quota is used up, an admission policy or webhook
/// said no.
fn not_made(deployment: &DeploymentObject) -> Option<(PodFailure, Option<Timestamp>)> {
    let failed = deployment.status.conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    let message = failed.message.clone().unwrap_or_default();
    let since = failed.last_transition_time.as_ref().map(|time| time.0);
    Some((PodFailure { reason: POD_CREATION_FAILED.to_owned(), message }, since))
}

/// For a pod whose containers all run: how much of the time is left in which it has to become ready.
fn unheard(pod: &FunctionPod, cold_start: Duration, now: Timestamp) -> Option<Duration> {
    // One that was ready and is not for the moment has its time from then on.
    let unready = pod.status.conditions.iter().find(|c| c.type_ == "Ready" && c.status != "True");
    let unready_since = unready.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    let since = pod.running_since()?.0.max(unready_since.unwrap_or(Timestamp::MIN));
    let running = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(cold_start.saturating_sub(running))
}

/// For a pod that has a node and whose containers do not all run: how much of the time is left in which they have to.
fn unstarted(pod: &FunctionPod, cold_start: Duration, now: Timestamp) -> Option<Duration> {
    let placed = pod.status.conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "True");
    let since = placed.and_then(|c| c.last_transition_time.as_ref()).filter(|_| pod.running_since().is_none())?.0;
    Some(cold_start.saturating_sub(Duration::try_from(now.duration_since(since)).unwrap_or_default()))
}

fn never_started(pod: &FunctionPod, cold_start: Duration) -> PodFailure {
    let status = &pod.status;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
    let waiting = containers.filter_map(|c| c.state.waiting.as_ref()?.reason.as_deref()).next();
    PodFailure {
        reason: NEVER_STARTED.to_owned(),
        message: format!(
            "the pod has a node, but its containers do not all run after {}s (spec.timeouts.coldStart){}; `kubectl describe pod` tells what they wait for: a volume, the image, an init container",
            cold_start.as_secs_f64(),
            waiting.map(|reason| format!(": {reason}")).unwrap_or_default(),
        ),
    }
}

fn never_listened(cold_start: Duration) -> PodFailure {
    PodFailure {
        reason: NEVER_LISTENED.to_owned(),
        message: format!(
            "the container runs, but was not ready within {}s (spec.timeouts.coldStart); it has to listen on the port given in PORT",
            cold_start.as_secs_f64()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::sync::Arc;

    use rouse_crds::names::REVISION_LABEL;
    use serde_json::{Value, json};

    const COLD: Duration = Duration::from_secs(60);

    fn found(deployment_status: Value, pods: &[Value]) -> Workloads {
        let mut found = Workloads::default();
        let mut deployment = json!({"metadata": {"name": "r"}, "spec": {"replicas": 1}});
        deployment["status"] = deployment_status;
        found.deployments.insert("r".into(), Arc::new(serde_json::from_value(deployment).unwrap()));
        for status in pods {
            let pod = json!({"metadata": {"name": "p", "labels": {REVISION_LABEL: "r"}}, "status": status});
            found.pods.push(Arc::new(serde_json::from_value(pod).unwrap()));
        }
        found
    }

    fn look(deployment_status: Value, pods: &[Value]) -> RevisionState {
        revision(&found(deployment_status, pods), "r", COLD, "2026-01-01T00:01:00Z".parse().unwrap())
    }

    fn waiting(reason: &str) -> Value {
        json!({"containerStatuses": [{"name": "function", "state": {"waiting": {"reason": reason, "message": "m"}}}]})
    }

    fn running(since: &str) -> Value {
        json!({"containerStatuses": [{"name": "function", "state": {"running": {"startedAt": since}}}]})
    }

    #[test]
    fn kubelets_word_is_taken() {
        assert_eq!(look(json!({}), &[waiting("ErrImagePull")]).failure.unwrap().reason, "ErrImagePull");
        assert_eq!(
            look(json!({}), &[waiting("ContainerCreating")]),
            RevisionState { desired: 1, ..RevisionState::default() }
        );
    }

    #[test]
    fn one_ready_pod_is_enough() {
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(look(json!({}), &[waiting("ErrImagePull"), ready]).failure, None);
        let state = look(json!({"readyReplicas": 1}), &[waiting("ErrImagePull")]);
        assert_eq!((state.ready, state.failure), (1, None));
    }

    #[test]
    fn a_pod_has_the_cold_start_time_to_listen() {
        let young = look(json!({}), &[running("2026-01-01T00:00:50Z")]);
        assert_eq!((young.failure, young.look_again), (None, Some(Duration::from_secs(50))));
        let old = look(json!({}), &[running("2026-01-01T00:00:00Z")]);
        assert_eq!((old.failure.unwrap().reason.as_str(), old.look_again), (NEVER_LISTENED, None));
    }

    #[test]
    fn a_pod_has_the_cold_start_time_to_start() {
        let creating = |since: &str| {
            let mut pod = waiting("ContainerCreating");
            pod["phase"] = json!("Pending");
            pod["conditions"] = json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": since}]);
            pod
        };
        let young = look(json!({}), &[creating("2026-01-01T00:00:50Z")]);
        assert_eq!((young.failure, young.look_again), (None, Some(Duration::from_secs(50))));
        let old = look(json!({}), &[creating("2026-01-01T00:00:00Z")]);
        let failure = old.failure.unwrap();
        assert_eq!((failure.reason.as_str(), old.look_again), (NEVER_STARTED, None));
        assert!(failure.message.contains("after 60s (spec.timeouts.coldStart): ContainerCreating;"), "{failure:?}");
        assert_eq!(old.passing, None);
    }

    #[test]
    fn a_pod_that_has_ended_says_nothing_beside_one_that_lives() {
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "memory"});
        assert_eq!(look(json!({}), &[evicted.clone(), waiting("ContainerCreating")]).failure, None);
        assert_eq!(look(json!({}), std::slice::from_ref(&evicted)).failure.unwrap().reason, "Evicted");
        let mut at_zero = found(json!({}), &[evicted]);
        let deployment = json!({"metadata": {"name": "r"}, "spec": {"replicas": 0}});
        at_zero.deployments.insert("r".into(), Arc::new(serde_json::from_value(deployment).unwrap()));
        let state = revision(&at_zero, "r", COLD, "2026-01-01T00:01:00Z".parse().unwrap());
        assert_eq!(state.failure, None, "at zero it is of another time");
    }

    #[test]
    fn what_is_the_cluster_s_doing_may_pass() {
        let unscheduled = |since: &str| {
            json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": since},
            ]})
        };
        let state = look(json!({}), &[unscheduled("2026-01-01T00:00:50Z")]);
        assert_eq!(state.failure.unwrap().reason, UNSCHEDULABLE);
        assert_eq!((state.passing, state.look_again), (Some(Duration::from_secs(50)), Some(Duration::from_secs(50))));
        let state = look(json!({}), &[unscheduled("2026-01-01T00:00:00Z")]);
        assert_eq!((state.failure.is_some(), state.passing, state.look_again), (true, None, None), "it has lasted");

        let put_out = json!({"phase": "Failed", "reason": "Evicted", "conditions": [
            {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:00:59Z"},
        ]});
        assert_eq!(look(json!({}), &[put_out]).passing, Some(Duration::from_secs(59)));
        let quota = json!({"conditions": [
            {"type": "ReplicaFailure", "status": "True", "lastTransitionTime": "2026-01-01T00:00:55Z"},
        ]});
        assert_eq!(look(quota, &[]).passing, Some(Duration::from_secs(55)));
        assert_eq!(look(json!({}), &[waiting("ErrImagePull")]).passing, None, "that is its own");
    }

    #[test]
    fn one_that_was_ready_has_its_time_anew() {
        let mut pod = running("2026-01-01T00:00:00Z");
        pod["conditions"] = json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:55Z"}]);
        let state = look(json!({}), &[pod]);
        assert_eq!((state.failure, state.look_again), (None, Some(Duration::from_secs(55))));
    }

    #[test]
    fn pods_that_cannot_be_made() {
        let status = json!({"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]});
        let failure = look(status.clone(), &[]).failure.unwrap();
        assert_eq!((failure.reason.as_str(), failure.message.as_str()), (POD_CREATION_FAILED, "exceeded quota"));
        assert_eq!(look(status, &[waiting("ContainerCreating")]).failure, None, "there is one, so the word is old");
    }

    /// As the Deployment controller writes it, of each kind of refusal.
    #[rstest]
    #[case::quota(r#"pods "r-6d9f7c-x2x5z" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0"#)]
    #[case::webhook(r#"admission webhook "validate.example.org" denied the request: no"#)]
    #[case::policy(r#"pods "r-6d9f7c-x2x5z" is forbidden: ValidatingAdmissionPolicy 'no-pods' with binding 'no-pods' denied request: no"#)]
    #[case::pod_security(
        r#"pods "r-6d9f7c-x2x5z" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true"#
    )]
    #[case::limits(r#"pods "r-6d9f7c-x2x5z" is forbidden: maximum cpu usage per Container is 1, but limit is 2"#)]
    fn pods_that_are_refused_now(#[case] message: &str) {
        let status = json!({"observedGeneration": 3, "unavailableReplicas": 1, "conditions": [
            {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "Deployment does not have minimum availability."},
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message},
        ]});
        let refused = pods_refused(&found(status.clone(), &[])).unwrap();
        assert_eq!((refused.reason.as_str(), refused.message.as_str()), (POD_CREATION_FAILED, message));
        assert_eq!(pods_refused(&found(status.clone(), &[waiting("ContainerCreating")])), None, "there is one");
        let mut at_zero = found(status, &[]);
        let deployment = json!({"metadata": {"name": "r"}, "spec": {"replicas": 0}});
        at_zero.deployments.insert("r".into(), Arc::new(serde_json::from_value(deployment).unwrap()));
        assert_eq!(pods_refused(&at_zero), None, "none is wanted");
    }
}
