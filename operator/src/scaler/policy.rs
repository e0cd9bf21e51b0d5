//! What a Function asks of the autoscaler for one of its revisions. Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rouse_autoscaler::{Metric, PRICE, Policy};
use rouse_crds::{
    Function,
    conditions::REVISION_READY,
    function::{self, Prewarm},
};

use crate::workloads::{Workloads, observe, pods};

/// How long after it was made a new revision that fails is tried.
const TRY: Duration = Duration::from_secs(600);

/// What is known of the revision.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it is the newest that has a Deployment.
    pub newest: bool,
    /// When its Deployment was made.
    pub created: Option<Timestamp>,
    /// Whether one of its pods cannot serve and none does.
    pub failing: bool,
    /// Whether one of its pods is ready.
    pub ready: bool,
    /// Pods that the Function's schedules want now.
    pub scheduled: u32,
}

impl<'a> Facts<'a> {
    /// What is known at `now` of the revision `name`, whose pods may take `cold_start` to listen, while a schedule wants
    /// `scheduled` pods.
    pub fn of(found: &Workloads, name: &'a str, cold_start: Duration, scheduled: u32, now: Timestamp) -> Self {
        let seen = observe::revision(found, name, cold_start, now);
        Self {
            name,
            // Names end in the number with leading zeros, so the last is the newest.
            newest: found.deployments.keys().next_back().is_some_and(|newest| newest == name),
            created: found.deployments.get(name).and_then(|d| d.creation_timestamp()).map(|t| t.0),
            failing: seen.failure.is_some(),
            ready: seen.ready > 0,
            scheduled,
        }
    }
}

/// The policy, and after how long it will be another one though nothing changes.
pub fn of(function: &Function, facts: Facts<'_>, now: Timestamp) -> (Policy, Option<Duration>) {
    let scaling = function.spec.scaling();
    let status = function.status.as_ref();
    let traffic = status.map_or(&[][..], |s| &s.traffic[..]);
    // Before the first status there is one revision and all calls are its.
    let carries = traffic.is_empty() || traffic.iter().any(|t| t.revision == facts.name && t.percent > 0);
    let said = status
        .filter(|s| s.latest_revision.as_deref() == Some(facts.name))
        .and_then(|s| s.conditions.iter().find(|c| c.type_ == REVISION_READY))
        .map(|c| c.status.as_str());
    let unproven = facts.newest && !facts.ready && !facts.failing && !matches!(said, Some("True" | "False"));
    let left = facts.created.map_or(Duration::ZERO, |created| {
        // What is made in the future by a clock that is ahead of ours has the whole time left.
        let age = Duration::try_from(now.duration_since(created)).unwrap_or_default();
        function.spec.timeouts().cold_start().saturating_sub(age)
    });
    let proving = unproven && !left.is_zero() && scaling.initial() > 0;
    // A revision that is about to take over needs the pods for its share before it has the share. One that fails may do
    // better by itself (a node comes, a registry is back), so for a while one pod goes on trying.
    let failed = facts.failing || said == Some("False");
    let asked = pods::requested_by_rollout(status, facts.name);
    let trying = facts.created.map_or(Duration::ZERO, |created| {
        TRY.saturating_sub(Duration::try_from(now.duration_since(created)).unwrap_or_default())
    });
    let held = match (failed, trying.is_zero()) {
        (false, _) => asked,
        (true, false) => asked.min(1),
        // Not while it has calls: going back because of its failure is for the roll-out, which sees it while a pod tries.
        (true, true) if carries => asked.min(1),
        (true, true) => 0,
    };
    let tries = failed && held > 0;
    let policy = Policy {
        min: if carries { scaling.min() } else { 0 },
        max: scaling.max(),
        initial: if proving { scaling.initial() } else { 0 },
        held,
        scheduled: if carries { facts.scheduled } else { 0 },
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
        // Of a revision that nobody calls there is nothing to be learned.
        prewarm: (carries && scaling.prewarm() == Prewarm::Auto).then_some(PRICE),
        // What has no calls is nobody's to scale by hand: it goes.
        paused: scaling.paused() && (carries || facts.newest),
    };
    let ends = [proving.then_some(left), tries.then_some(trying)];
    (policy, ends.into_iter().flatten().min())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn function(status: Value) -> Function {
        let mut whole = json!({
            "apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "metadata": {"name": "f"},
            "spec": {"image": "i", "scaling": {"min": 2, "initial": 3, "target": 5}},
        });
        whole["status"] = status;
        serde_json::from_value(whole).unwrap()
    }

    fn facts(name: &str) -> Facts<'_> {
        Facts {
            name,
            newest: true,
            created: "2026-01-01T00:00:00Z".parse().ok(),
            failing: false,
            ready: false,
            scheduled: 7,
        }
    }

    fn now(second: i64) -> Timestamp {
        "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(second.unsigned_abs())
    }

    fn said(status: &str) -> Value {
        json!({
            "latestRevision": "f-2",
            "traffic": [{"revision": "f-1", "percent": 100}],
            "conditions": [{"type": REVISION_READY, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        })
    }

    #[rstest]
    #[case::just_made(json!({}), facts("f-2"), 0, (2, 3))]
    #[case::being_proven_beside_another(said("Unknown"), facts("f-2"), 10, (0, 3))]
    #[case::proven(said("True"), facts("f-2"), 10, (0, 0))]
    #[case::failed(said("False"), facts("f-2"), 10, (0, 0))]
    #[case::failing_before_it_is_said(said("Unknown"), Facts { failing: true, ..facts("f-2") }, 10, (0, 0))]
    #[case::ready_before_it_is_said(said("Unknown"), Facts { ready: true, ..facts("f-2") }, 10, (0, 0))]
    #[case::too_old(said("Unknown"), facts("f-2"), 60, (0, 0))]
    #[case::carries(said("Unknown"), Facts { newest: false, ..facts("f-1") }, 10, (2, 0))]
    #[case::old_and_without_traffic(said("True"), Facts { newest: false, ..facts("f-0") }, 10, (0, 0))]
    fn min_and_initial(
        #[case] status: Value,
        #[case] facts: Facts<'_>,
        #[case] second: i64,
        #[case] expected: (u32, u32),
    ) {
        let (policy, _) = of(&function(status), facts, now(second));
        assert_eq!((policy.min, policy.initial), expected);
        assert_eq!(policy.scheduled > 0, policy.min > 0, "schedules are for what carries calls");
    }

    #[test]
    fn prewarm_and_pause_are_taken_over() {
        let mut function = function(said("True"));
        let policies = |function: &Function| ["f-1", "f-0"].map(|name| of(function, facts(name), now(0)).0);
        let [carries, _] = policies(&function);
        assert_eq!((carries.prewarm, carries.paused), (None, false));
        let scaling = function.spec.scaling.get_or_insert_default();
        (scaling.prewarm, scaling.paused) = (Some(Prewarm::Auto), Some(true));
        let [carries, idle] = policies(&function);
        assert_eq!((carries.prewarm, carries.paused, idle.prewarm), (Some(PRICE), true, None));
        let old = of(&function, Facts { newest: false, ..facts("f-0") }, now(0)).0;
        assert!(!old.paused, "a revision without calls goes, or each edit would leave its pods behind");
    }

    #[test]
    fn a_roll_out_holds_the_pods_that_it_asks_for() {
        let mut status = said("True");
        status["rollout"] = json!({"revision": "f-2", "from": "f-1", "percent": 10, "phase": "Progressing", "pods": 9});
        let held = |status: &Value, facts, second| of(&function(status.clone()), facts, now(second)).0.held;
        assert_eq!(held(&status, facts("f-2"), 100), 9);
        assert_eq!(held(&status, Facts { newest: false, ..facts("f-1") }, 100), 0);
        let failing = Facts { failing: true, ..facts("f-2") };
        assert_eq!(held(&status, failing, 100), 1, "one that fails goes on trying");
        assert_eq!(of(&function(status.clone()), failing, now(100)).1, Some(Duration::from_secs(500)));
        assert_eq!(held(&status, failing, 600), 0, "not for ever");
        status["rollout"]["phase"] = json!("Aborted");
        assert_eq!(held(&status, facts("f-2"), 100), 0);
    }

    #[test]
    fn says_when_the_proof_is_over() {
        let (policy, left) = of(&function(said("Unknown")), facts("f-2"), now(20));
        assert_eq!(left, Some(Duration::from_secs(40)));
        assert!((policy.target - 5.0).abs() < 1e-9);
        assert_eq!(of(&function(said("True")), facts("f-2"), now(20)).1, None);
    }
}
