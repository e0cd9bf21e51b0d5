//! Autoscaling policy of one revision, from the spec and status of its Function. Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rouse_autoscaler::{COLD_START_COST, Metric, Policy};
use rouse_crds::{
    Function,
    conditions::REVISION_READY,
    function::{self, Prewarm},
};

use crate::workloads::{Workloads, observe, pods};

/// Time after the creation of a failing revision in which its pods are kept running, and after the creation of a pod in which
/// it may become ready before the idle timeout runs.
const RETRY_PERIOD: Duration = Duration::from_secs(600);

/// Observed state of a revision.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is the newest revision with a Deployment.
    pub newest: bool,
    /// Creation time of its Deployment.
    pub created: Option<Timestamp>,
    /// Whether a pod has failed because of its revision and none is ready. A failure that may end without a change to the
    /// Function does not count: fewer pods would not help.
    pub failing: bool,
    /// Whether one of its pods is ready.
    pub ready: bool,
    /// Age of its oldest pod, if that is starting and none is ready.
    pub starting_for: Option<Duration>,
    /// Pods that the schedules of the Function request now.
    pub scheduled: u32,
}

impl<'a> Facts<'a> {
    /// Observes the revision `name` at `now`. `cold_start` is the time in which a pod has to become ready.
    pub fn of(workloads: &Workloads, name: &'a str, cold_start: Duration, scheduled: u32, now: Timestamp) -> Self {
        let state = observe::revision(workloads, name, cold_start, now);
        Self {
            name,
            newest: workloads.newest() == Some(name),
            created: workloads.deployments.get(name).and_then(|d| d.creation_timestamp()).map(|t| t.0),
            failing: state.failure.is_some() && state.transient.is_none(),
            ready: state.ready > 0,
            starting_for: observe::starting_for(workloads, name, &state, now),
            scheduled,
        }
    }
}

/// Returns the policy, and the time after which it changes without an event.
pub fn of(function: &Function, facts: Facts<'_>, now: Timestamp) -> (Policy, Option<Duration>) {
    let scaling = function.spec.scaling();
    let status = function.status.as_ref();
    let traffic = status.map_or(&[][..], |s| &s.traffic[..]);
    // Before the first status there is one revision, with all traffic.
    let has_traffic = traffic.is_empty() || traffic.iter().any(|t| t.revision == facts.name && t.percent > 0);
    let reported = status
        .filter(|s| s.latest_revision.as_deref() == Some(facts.name))
        .and_then(|s| s.conditions.iter().find(|c| c.type_ == REVISION_READY))
        .map(|c| c.status.as_str());
    let unverified = facts.newest && !facts.ready && !facts.failing && !matches!(reported, Some("True" | "False"));
    let start_remaining = facts.created.map_or(Duration::ZERO, |created| {
        // A creation time in the future, by a clock that is ahead, leaves the whole time.
        let age = Duration::try_from(now.duration_since(created)).unwrap_or_default();
        function.spec.timeouts().cold_start().saturating_sub(age)
    });
    let starting = unverified && !start_remaining.is_zero() && scaling.initial() > 0;
    // A revision needs the pods for its traffic before it receives the traffic. A failing revision may recover (a node is
    // added, a registry is back), so for a while one pod keeps retrying.
    let failed = facts.failing || reported == Some("False");
    let requested = pods::requested_by_rollout(status, facts.name);
    let retry_remaining = facts.created.map_or(Duration::ZERO, |created| {
        RETRY_PERIOD.saturating_sub(Duration::try_from(now.duration_since(created)).unwrap_or_default())
    });
    let held = match (failed, retry_remaining.is_zero()) {
        (false, _) => requested,
        (true, false) => requested.min(1),
        // With traffic, one pod stays: the rollback is up to the rollout, which sees the failure while a pod retries.
        (true, true) if has_traffic => requested.min(1),
        (true, true) => 0,
    };
    let retrying = failed && held > 0;
    let pod_remaining = facts.starting_for.and_then(|age| RETRY_PERIOD.checked_sub(age)).filter(|time| !time.is_zero());
    let policy = Policy {
        min: if has_traffic { scaling.min() } else { 0 },
        max: scaling.max(),
        initial: if starting { scaling.initial() } else { 0 },
        held,
        starting: pod_remaining.is_some(),
        scheduled: if has_traffic { facts.scheduled } else { 0 },
        metric: match scaling.metric() {
            function::Metric::Concurrency => Metric::Concurrency,
            function::Metric::Rps => Metric::Rps,
        },
        target: scaling.target(),
        limit: scaling.concurrency_limit(),
        idle_timeout: scaling.idle_timeout(),
        stable_window: scaling.stable_window(),
        panic_window: scaling.panic_window(),
        scale_down_delay: scaling.scale_down_delay(),
        // A revision without traffic has no idle times to learn from.
        prewarm: (has_traffic && scaling.prewarm() == Prewarm::Auto).then_some(COLD_START_COST),
        // An old revision without traffic is scaled down even if paused.
        paused: scaling.paused() && (has_traffic || facts.newest),
    };
    let valid_for = [starting.then_some(start_remaining), retrying.then_some(retry_remaining), pod_remaining];
    (policy, valid_for.into_iter().flatten().min())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn function(status: Value) -> Function {
        let mut object = json!({
            "apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "metadata": {"name": "f"},
            "spec": {"image": "i", "scaling": {"min": 2, "initial": 3, "target": 5}},
        });
        object["status"] = status;
        serde_json::from_value(object).unwrap()
    }

    fn facts(name: &str) -> Facts<'_> {
        Facts {
            name,
            newest: true,
            created: "2026-01-01T00:00:00Z".parse().ok(),
            failing: false,
            ready: false,
            starting_for: None,
            scheduled: 7,
        }
    }

    fn now(second: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(second.unsigned_abs())
    }

    fn reported(status: &str) -> Value {
        json!({
            "latestRevision": "f-2",
            "traffic": [{"revision": "f-1", "percent": 100}],
            "conditions": [{"type": REVISION_READY, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        })
    }

    #[rstest]
    #[case::just_created(json!({}), facts("f-2"), 0, (2, 3))]
    #[case::unverified_beside_another(reported("Unknown"), facts("f-2"), 10, (0, 3))]
    #[case::verified(reported("True"), facts("f-2"), 10, (0, 0))]
    #[case::failed(reported("False"), facts("f-2"), 10, (0, 0))]
    #[case::failing_before_the_status_reports_it(reported("Unknown"), Facts { failing: true, ..facts("f-2") }, 10, (0, 0))]
    #[case::ready_before_the_status_reports_it(reported("Unknown"), Facts { ready: true, ..facts("f-2") }, 10, (0, 0))]
    #[case::cold_start_elapsed(reported("Unknown"), facts("f-2"), 60, (0, 0))]
    #[case::has_traffic(reported("Unknown"), Facts { newest: false, ..facts("f-1") }, 10, (2, 0))]
    #[case::old_and_without_traffic(reported("True"), Facts { newest: false, ..facts("f-0") }, 10, (0, 0))]
    fn min_and_initial(
        #[case] status: Value,
        #[case] facts: Facts<'_>,
        #[case] second: i64,
        #[case] expected: (u32, u32),
    ) {
        let (policy, _) = of(&function(status), facts, now(second));
        assert_eq!((policy.min, policy.initial), expected);
        assert_eq!(policy.scheduled > 0, policy.min > 0, "schedules apply to revisions with traffic");
    }

    #[test]
    fn prewarm_and_pause_apply_to_revisions_with_traffic() {
        let mut function = function(reported("True"));
        let policies = |function: &Function| ["f-1", "f-0"].map(|name| of(function, facts(name), now(0)).0);
        let [with_traffic, _] = policies(&function);
        assert_eq!((with_traffic.prewarm, with_traffic.paused), (None, false));
        let scaling = function.spec.scaling.get_or_insert_default();
        (scaling.prewarm, scaling.paused) = (Some(Prewarm::Auto), Some(true));
        let [with_traffic, idle] = policies(&function);
        assert_eq!((with_traffic.prewarm, with_traffic.paused, idle.prewarm), (Some(COLD_START_COST), true, None));
        let old = of(&function, Facts { newest: false, ..facts("f-0") }, now(0)).0;
        assert!(!old.paused, "an old revision is scaled down, or each edit would leave its pods behind");
    }

    #[test]
    fn a_rollout_holds_the_pods_that_it_requests() {
        let mut status = reported("True");
        status["rollout"] = json!({"revision": "f-2", "from": "f-1", "percent": 10, "phase": "Progressing", "pods": 9});
        let held = |status: &Value, facts, second| of(&function(status.clone()), facts, now(second)).0.held;
        assert_eq!(held(&status, facts("f-2"), 100), 9);
        assert_eq!(held(&status, Facts { newest: false, ..facts("f-1") }, 100), 0);
        let failing = Facts { failing: true, ..facts("f-2") };
        assert_eq!(held(&status, failing, 100), 1, "one pod keeps retrying");
        assert_eq!(of(&function(status.clone()), failing, now(100)).1, Some(Duration::from_secs(500)));
        assert_eq!(held(&status, failing, 600), 0, "until the retry period ends");
        status["rollout"]["phase"] = json!("Aborted");
        assert_eq!(held(&status, facts("f-2"), 100), 0);
    }

    #[test]
    fn a_pod_may_start_for_ten_minutes() {
        let start = |age: u64| {
            let facts = Facts { starting_for: Some(Duration::from_secs(age)), ..facts("f-2") };
            let (policy, valid_for) = of(&function(reported("True")), facts, now(0));
            (policy.starting, valid_for)
        };
        assert_eq!(start(100), (true, Some(Duration::from_secs(500))));
        assert_eq!(start(600), (false, None));
    }

    #[test]
    fn the_policy_expires_with_the_cold_start() {
        let (policy, valid_for) = of(&function(reported("Unknown")), facts("f-2"), now(20));
        assert_eq!(valid_for, Some(Duration::from_secs(40)));
        assert!((policy.target - 5.0).abs() < 1e-9);
        assert_eq!(of(&function(reported("True")), facts("f-2"), now(20)).1, None);
    }

    #[test]
    fn a_rollout_keeps_its_pods_while_the_cluster_has_no_capacity() {
        let mut status = reported("Unknown");
        status["rollout"] = json!({"revision": "f-2", "from": "f-1", "percent": 0, "phase": "Progressing", "pods": 20});
        let pod = json!({"metadata": {"name": "p", "labels": {"rouse.dev/revision": "f-2"}}, "status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": "2026-01-01T00:01:00Z",
        }]}});
        let deployment =
            json!({"metadata": {"name": "f-2", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"replicas": 20}});
        let mut workloads = Workloads::default();
        workloads.pods.push(std::sync::Arc::new(serde_json::from_value(pod).unwrap()));
        workloads.deployments.insert("f-2".into(), std::sync::Arc::new(serde_json::from_value(deployment).unwrap()));
        let held = |second| {
            let facts = Facts::of(&workloads, "f-2", Duration::from_secs(60), 0, now(second));
            of(&function(status.clone()), facts, now(second)).0.held
        };
        assert_eq!(held(90), 20, "a node may be on its way");
        assert_eq!(held(121), 1, "it is not");
    }
}
