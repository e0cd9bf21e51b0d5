//! State of a revision, computed from its Deployment and pods. Pure.

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use rouse_crds::{
    conditions::{POD_CREATION_FAILED, READINESS_TIMEOUT, START_TIMEOUT},
    pod::{FunctionPod, PodFailure},
};

use super::Workloads;
use crate::cluster::children::DeploymentObject;

/// State of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevisionState {
    /// Desired number of pods.
    pub desired: u32,
    /// Number of ready pods.
    pub ready: u32,
    /// Why no pod serves requests, if known.
    pub failure: Option<PodFailure>,
    /// Remaining time in which `failure` counts as transient: its cause is the cluster or a node and not the revision, such
    /// as insufficient capacity, an eviction or an exhausted quota.
    pub transient: Option<Duration>,
    /// Time after which the state can change without an event: a pod becomes overdue, or `transient` ends.
    pub requeue_after: Option<Duration>,
}

/// Computes the state of `revision` at `now`. `cold_start` is the time in which a pod has to become ready.
pub fn revision(workloads: &Workloads, revision: &str, cold_start: Duration, now: Timestamp) -> RevisionState {
    let Some(deployment) = workloads.deployments.get(revision) else { return RevisionState::default() };
    let mut pods: Vec<_> = workloads.pods.iter().filter(|pod| pod.revision() == Some(revision)).map(|p| &**p).collect();
    // Objects of ended (for example evicted) pods stay for long. They count only while pods are desired and no other
    // pod exists.
    let alive = pods.iter().any(|pod| !pod.ended());
    pods.retain(|pod| !pod.ended() || (!alive && deployment.desired() > 0));
    let mut state =
        RevisionState { desired: deployment.desired(), ready: deployment.ready(), ..RevisionState::default() };
    // The kubelet may report such a pod ready, but activators send it no requests.
    if let Some(failure) = pods.iter().filter(|pod| pod.spec.host_network).find_map(|pod| pod.failure()) {
        return RevisionState { ready: 0, failure: Some(failure), ..state };
    }
    if state.ready > 0 || pods.iter().any(|pod| pod.ready()) {
        return state;
    }
    let remaining = |since: Timestamp| {
        let lasted = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        Some(cold_start.saturating_sub(lasted)).filter(|remaining| !remaining.is_zero())
    };
    if let Some((pod, failure)) = pods.iter().find_map(|pod| Some((pod, pod.failure()?))) {
        state.transient = transient_since(pod, &failure).and_then(remaining);
        state.failure = Some(failure);
    }
    for pod in &pods {
        let (remaining, failure) = match until_readiness_timeout(pod, cold_start, now) {
            Some(remaining) => (Some(remaining), readiness_timeout(cold_start)),
            None => (until_start_timeout(pod, cold_start, now), start_timeout(pod, cold_start)),
        };
        match remaining {
            Some(Duration::ZERO) if state.failure.is_none() => state.failure = Some(failure),
            Some(remaining) => {
                state.requeue_after = Some(state.requeue_after.map_or(remaining, |other| other.min(remaining)));
            }
            None => {}
        }
    }
    if state.failure.is_none()
        && pods.is_empty()
        && state.desired > 0
        && let Some((failure, since)) = creation_failure(deployment)
    {
        state.failure = Some(failure);
        state.transient = since.and_then(remaining);
    }
    state.requeue_after = [state.requeue_after, state.transient].into_iter().flatten().filter(|d| !d.is_zero()).min();
    state
}

/// Returns the age of the oldest pod of `revision` that is starting: no pod is ready, and none has a failure that only a change
/// to the Function ends. `None` if no pod is starting. `state` is the state of the revision at `now`.
pub fn starting_for(workloads: &Workloads, revision: &str, state: &RevisionState, now: Timestamp) -> Option<Duration> {
    let late = |failure: &PodFailure| [READINESS_TIMEOUT, START_TIMEOUT].contains(&failure.reason.as_str());
    let may_start = state.failure.as_ref().is_none_or(|failure| failure.is_transient() || late(failure));
    if state.ready > 0 || !may_start {
        return None;
    }
    let pods = workloads.pods.iter().filter(|pod| pod.revision() == Some(revision) && !pod.ended());
    let created = pods.filter_map(|pod| pod.metadata.creation_timestamp.as_ref()).map(|time| time.0).min()?;
    Some(Duration::try_from(now.duration_since(created)).unwrap_or_default())
}

/// Time since which a pod has had a failure that may end without a change to the Function; `None` if the revision is the
/// cause.
fn transient_since(pod: &FunctionPod, failure: &PodFailure) -> Option<Timestamp> {
    let changed = || pod.status.conditions.iter().filter_map(|c| c.last_transition_time.as_ref()).map(|t| t.0).max();
    failure.is_transient().then(changed).flatten()
}

/// Why desired pods cannot be created, for the first revision that has none and wants some.
pub fn pods_refused(workloads: &Workloads) -> Option<PodFailure> {
    workloads.deployments.iter().find_map(|(revision, deployment)| {
        let none = !workloads.pods.iter().any(|pod| pod.revision() == Some(revision));
        Some((none && deployment.desired() > 0).then(|| creation_failure(deployment)).flatten()?.0)
    })
}

/// Returns why a revision has fewer pods than desired, also beside pods that are ready: pods cannot be created, are
/// unschedulable, or fail. The first of them in the order of the names.
pub fn shortage(workloads: &Workloads) -> Option<PodFailure> {
    workloads.deployments.iter().filter(|(_, deployment)| deployment.desired() > 0).find_map(
        |(revision, deployment)| {
            let of_revision = |pod: &&Arc<FunctionPod>| pod.revision() == Some(revision) && !pod.ended();
            let pods: Vec<_> = workloads.pods.iter().filter(of_revision).collect();
            let (desired, existing) = (deployment.desired(), u32::try_from(pods.len()).unwrap_or(u32::MAX));
            if existing < desired
                && let Some((PodFailure { reason, message }, _)) = creation_failure(deployment)
            {
                let message = format!("{revision} has {existing} of {desired} pods: {message}");
                return Some(PodFailure { reason, message });
            }
            let failing: Vec<_> = pods.iter().filter(|pod| !pod.ready()).filter_map(|pod| pod.failure()).collect();
            let PodFailure { reason, message } = failing.first()?;
            let alike = failing.iter().filter(|failure| failure.reason == *reason).count();
            let message = format!("{alike} of {desired} pods of {revision}: {message}");
            Some(PodFailure { reason: reason.clone(), message })
        },
    )
}

/// The `ReplicaFailure` of a Deployment and its time: a quota is exhausted, or an admission policy or webhook denied
/// the pods.
fn creation_failure(deployment: &DeploymentObject) -> Option<(PodFailure, Option<Timestamp>)> {
    let failed = deployment.status.conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    let message = failed.message.clone().unwrap_or_default();
    let since = failed.last_transition_time.as_ref().map(|time| time.0);
    Some((PodFailure { reason: POD_CREATION_FAILED.to_owned(), message }, since))
}

/// For a pod whose containers are all running: remaining time in which it has to become ready.
fn until_readiness_timeout(pod: &FunctionPod, cold_start: Duration, now: Timestamp) -> Option<Duration> {
    // For a pod that was ready before, the time starts when it became unready.
    let unready = pod.status.conditions.iter().find(|c| c.type_ == "Ready" && c.status != "True");
    let unready_since = unready.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    let since = pod.running_since()?.0.max(unready_since.unwrap_or(Timestamp::MIN));
    let running = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(cold_start.saturating_sub(running))
}

/// For a scheduled pod whose containers are not all running: remaining time in which they have to start.
fn until_start_timeout(pod: &FunctionPod, cold_start: Duration, now: Timestamp) -> Option<Duration> {
    let scheduled = pod.status.conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "True");
    let since = scheduled.and_then(|c| c.last_transition_time.as_ref()).filter(|_| pod.running_since().is_none())?.0;
    Some(cold_start.saturating_sub(Duration::try_from(now.duration_since(since)).unwrap_or_default()))
}

fn start_timeout(pod: &FunctionPod, cold_start: Duration) -> PodFailure {
    let status = &pod.status;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
    let waiting = containers.filter_map(|c| c.state.waiting.as_ref()?.reason.as_deref()).next();
    PodFailure {
        reason: START_TIMEOUT.to_owned(),
        message: format!(
            "The pod is scheduled, but its containers did not start within {}s (spec.timeouts.coldStart){}; run `kubectl describe pod` to see what they wait for: a volume, the image or an init container",
            cold_start.as_secs_f64(),
            waiting.map(|reason| format!(": {reason}")).unwrap_or_default(),
        ),
    }
}

fn readiness_timeout(cold_start: Duration) -> PodFailure {
    PodFailure {
        reason: READINESS_TIMEOUT.to_owned(),
        message: format!(
            "The container is running, but was not ready within {}s (spec.timeouts.coldStart); it must listen on the port in the environment variable PORT",
            cold_start.as_secs_f64()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

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

    fn observe(deployment_status: Value, pods: &[Value]) -> RevisionState {
        revision(&found(deployment_status, pods), "r", COLD, "2026-01-01T00:01:00Z".parse().unwrap())
    }

    fn waiting(reason: &str) -> Value {
        json!({"containerStatuses": [{"name": "function", "state": {"waiting": {"reason": reason, "message": "m"}}}]})
    }

    fn running(since: &str) -> Value {
        json!({"containerStatuses": [{"name": "function", "state": {"running": {"startedAt": since}}}]})
    }

    #[test]
    fn reports_the_waiting_reason_of_the_kubelet() {
        assert_eq!(observe(json!({}), &[waiting("ErrImagePull")]).failure.unwrap().reason, "ErrImagePull");
        assert_eq!(
            observe(json!({}), &[waiting("ContainerCreating")]),
            RevisionState { desired: 1, ..RevisionState::default() }
        );
    }

    #[test]
    fn one_ready_pod_clears_the_failure() {
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(observe(json!({}), &[waiting("ErrImagePull"), ready]).failure, None);
        let state = observe(json!({"readyReplicas": 1}), &[waiting("ErrImagePull")]);
        assert_eq!((state.ready, state.failure), (1, None));
    }

    #[test]
    fn a_pod_on_the_network_of_its_node_fails_although_it_is_ready() {
        let mut found = found(json!({"readyReplicas": 1}), &[]);
        let pod = json!({
            "metadata": {"name": "p", "labels": {REVISION_LABEL: "r"}}, "spec": {"hostNetwork": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        found.pods.push(Arc::new(serde_json::from_value(pod).unwrap()));
        let state = revision(&found, "r", COLD, "2026-01-01T00:01:00Z".parse().unwrap());
        assert_eq!((state.ready, state.failure.unwrap().reason.as_str()), (0, "HostNetwork"));
    }

    #[test]
    fn a_running_pod_must_become_ready_within_cold_start() {
        let young = observe(json!({}), &[running("2026-01-01T00:00:50Z")]);
        assert_eq!((young.failure, young.requeue_after), (None, Some(Duration::from_secs(50))));
        let old = observe(json!({}), &[running("2026-01-01T00:00:00Z")]);
        assert_eq!((old.failure.unwrap().reason.as_str(), old.requeue_after), (READINESS_TIMEOUT, None));
    }

    #[test]
    fn a_scheduled_pod_must_start_within_cold_start() {
        let creating = |since: &str| {
            let mut pod = waiting("ContainerCreating");
            pod["phase"] = json!("Pending");
            pod["conditions"] = json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": since}]);
            pod
        };
        let young = observe(json!({}), &[creating("2026-01-01T00:00:50Z")]);
        assert_eq!((young.failure, young.requeue_after), (None, Some(Duration::from_secs(50))));
        let old = observe(json!({}), &[creating("2026-01-01T00:00:00Z")]);
        let failure = old.failure.unwrap();
        assert_eq!((failure.reason.as_str(), old.requeue_after), (START_TIMEOUT, None));
        assert!(failure.message.contains("within 60s (spec.timeouts.coldStart): ContainerCreating;"), "{failure:?}");
        assert_eq!(old.transient, None);
    }

    #[test]
    fn an_ended_pod_is_ignored_beside_a_live_one() {
        let evicted = json!({"phase": "Failed", "reason": "Evicted", "message": "memory"});
        assert_eq!(observe(json!({}), &[evicted.clone(), waiting("ContainerCreating")]).failure, None);
        assert_eq!(observe(json!({}), std::slice::from_ref(&evicted)).failure.unwrap().reason, "Evicted");
        let mut at_zero = found(json!({}), &[evicted]);
        let deployment = json!({"metadata": {"name": "r"}, "spec": {"replicas": 0}});
        at_zero.deployments.insert("r".into(), Arc::new(serde_json::from_value(deployment).unwrap()));
        let state = revision(&at_zero, "r", COLD, "2026-01-01T00:01:00Z".parse().unwrap());
        assert_eq!(state.failure, None, "at zero it is outdated");
    }

    #[test]
    fn failures_of_the_cluster_are_transient() {
        let unscheduled = |since: &str| {
            json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": since},
            ]})
        };
        let state = observe(json!({}), &[unscheduled("2026-01-01T00:00:50Z")]);
        assert_eq!(state.failure.unwrap().reason, "Unschedulable");
        assert_eq!(
            (state.transient, state.requeue_after),
            (Some(Duration::from_secs(50)), Some(Duration::from_secs(50)))
        );
        let state = observe(json!({}), &[unscheduled("2026-01-01T00:00:00Z")]);
        assert_eq!(
            (state.failure.is_some(), state.transient, state.requeue_after),
            (true, None, None),
            "no longer transient"
        );

        let evicted = json!({"phase": "Failed", "reason": "Evicted", "conditions": [
            {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T00:00:59Z"},
        ]});
        assert_eq!(observe(json!({}), &[evicted]).transient, Some(Duration::from_secs(59)));
        let quota = json!({"conditions": [
            {"type": "ReplicaFailure", "status": "True", "lastTransitionTime": "2026-01-01T00:00:55Z"},
        ]});
        assert_eq!(observe(quota, &[]).transient, Some(Duration::from_secs(55)));
        let mut pulls = waiting("ErrImagePull");
        pulls["conditions"] =
            json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:58Z"}]);
        assert_eq!(observe(json!({}), std::slice::from_ref(&pulls)).transient, Some(Duration::from_secs(58)));
        pulls["containerStatuses"][0]["state"]["waiting"]["message"] = json!("example.org/nope:1: not found");
        assert_eq!(observe(json!({}), &[pulls]).transient, None, "caused by the revision");
    }

    /// The other pods serve, so the Function is ready, and nobody would know why requests are queued.
    #[rstest]
    #[case::quota(json!({"readyReplicas": 1, "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]}), json!({}), Some((POD_CREATION_FAILED, "r has 2 of 3 pods: exceeded quota")))]
    #[case::no_node(json!({"readyReplicas": 1}), json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}), Some(("Unschedulable", "1 of 3 pods of r: 0/3 nodes")))]
    #[case::crash(json!({"readyReplicas": 1}), waiting("CrashLoopBackOff"), Some(("CrashLoopBackOff", "1 of 3 pods of r: container function: ")))]
    #[case::starting(json!({"readyReplicas": 1}), waiting("ContainerCreating"), None)]
    fn a_shortage_beside_a_ready_pod(
        #[case] status: Value,
        #[case] other: Value,
        #[case] expected: Option<(&str, &str)>,
    ) {
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let mut workloads = found(status, &[ready, other]);
        let mut deployment = (*workloads.deployments["r"]).clone();
        deployment.spec.replicas = 3;
        workloads.deployments.insert("r".into(), Arc::new(deployment));
        let shortage = shortage(&workloads).map(|failure| (failure.reason, failure.message));
        assert_eq!(shortage, expected.map(|(reason, message)| (reason.to_owned(), message.to_owned())));
    }

    #[rstest]
    #[case::pulls_an_image(waiting("ContainerCreating"), true)]
    #[case::is_late(running("2026-01-01T00:00:00Z"), true)]
    #[case::waits_for_a_node(json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]}), true)]
    #[case::crashes(waiting("CrashLoopBackOff"), false)]
    #[case::has_no_image(waiting("InvalidImageName"), false)]
    #[case::is_ready(json!({"conditions": [{"type": "Ready", "status": "True"}]}), false)]
    #[case::has_ended(json!({"phase": "Failed", "reason": "Evicted"}), false)]
    fn a_starting_pod(#[case] status: Value, #[case] starts: bool) {
        let mut workloads = found(json!({}), &[status]);
        let ready = workloads.pods[0].ready();
        let mut pod = (*workloads.pods[0]).clone();
        pod.metadata.creation_timestamp = serde_json::from_value(json!("2026-01-01T00:00:40Z")).unwrap();
        workloads.pods = vec![Arc::new(pod)];
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let mut state = revision(&workloads, "r", COLD, now);
        state.ready = u32::from(ready);
        assert_eq!(starting_for(&workloads, "r", &state, now), starts.then_some(Duration::from_secs(20)));
    }

    #[test]
    fn the_readiness_timeout_restarts_when_a_pod_becomes_unready() {
        let mut pod = running("2026-01-01T00:00:00Z");
        pod["conditions"] = json!([{"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:55Z"}]);
        let state = observe(json!({}), &[pod]);
        assert_eq!((state.failure, state.requeue_after), (None, Some(Duration::from_secs(55))));
    }

    #[test]
    fn replica_failure_is_reported_without_pods() {
        let status = json!({"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]});
        let failure = observe(status.clone(), &[]).failure.unwrap();
        assert_eq!((failure.reason.as_str(), failure.message.as_str()), (POD_CREATION_FAILED, "exceeded quota"));
        assert_eq!(
            observe(status, &[waiting("ContainerCreating")]).failure,
            None,
            "a pod exists, so the failure is outdated"
        );
    }

    /// Messages of the Deployment controller for each kind of refusal.
    #[rstest]
    #[case::quota(r#"pods "r-6d9f7c-x2x5z" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0"#)]
    #[case::webhook(r#"admission webhook "validate.example.org" denied the request: no"#)]
    #[case::policy(r#"pods "r-6d9f7c-x2x5z" is forbidden: ValidatingAdmissionPolicy 'no-pods' with binding 'no-pods' denied request: no"#)]
    #[case::pod_security(
        r#"pods "r-6d9f7c-x2x5z" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true"#
    )]
    #[case::limits(r#"pods "r-6d9f7c-x2x5z" is forbidden: maximum cpu usage per Container is 1, but limit is 2"#)]
    fn reports_refused_pods(#[case] message: &str) {
        let status = json!({"observedGeneration": 3, "unavailableReplicas": 1, "conditions": [
            {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "Deployment does not have minimum availability."},
            {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message},
        ]});
        let refused = pods_refused(&found(status.clone(), &[])).unwrap();
        assert_eq!((refused.reason.as_str(), refused.message.as_str()), (POD_CREATION_FAILED, message));
        assert_eq!(pods_refused(&found(status.clone(), &[waiting("ContainerCreating")])), None, "a pod exists");
        let mut at_zero = found(status, &[]);
        let deployment = json!({"metadata": {"name": "r"}, "spec": {"replicas": 0}});
        at_zero.deployments.insert("r".into(), Arc::new(serde_json::from_value(deployment).unwrap()));
        assert_eq!(pods_refused(&at_zero), None, "no pod is desired");
    }
}
