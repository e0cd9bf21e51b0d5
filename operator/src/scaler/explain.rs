//! State and decisions of the scaler for one Function, as JSON for `/debug/functions`.

use std::{fmt, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use rouse_autoscaler::{Decision, Metric, Policy, Seen};
use rouse_crds::Function;
use serde_json::{Value, json};

use super::{
    Scaler, drain, policy,
    tracker::{FunctionTracker, RevisionTracker},
};
use crate::cluster::{children::DeploymentObject, key::FunctionKey};

/// Gives access to the scaler while this replica is the leader. Clones share it.
#[derive(Clone, Default)]
pub struct Explainer(Arc<Mutex<Option<Arc<Scaler>>>>);

impl fmt::Debug for Explainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Explainer").field(&self.0.lock().is_some()).finish()
    }
}

/// Why there is no explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainError {
    /// This replica is not the leader.
    NotLeading,
    /// The Function does not exist or is invalid.
    Unknown,
}

/// Registration of the scaler with an [`Explainer`]. Dropping it ends the registration.
#[derive(Debug)]
pub struct Registration(Explainer);

impl Drop for Registration {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}

impl Explainer {
    /// Registers `scaler` until the result is dropped.
    #[must_use]
    pub fn register(&self, scaler: &Arc<Scaler>) -> Registration {
        *self.0.lock() = Some(Arc::clone(scaler));
        Registration(self.clone())
    }

    /// Returns the state and the decisions of the scaler for a Function.
    ///
    /// # Errors
    ///
    /// If this replica is not the leader, or the Function does not exist or is invalid.
    pub fn explain(&self, key: &FunctionKey) -> Result<Value, ExplainError> {
        let scaler = self.0.lock().clone().ok_or(ExplainError::NotLeading)?;
        let guarded = scaler.caches.functions.get(key, &key.name).ok_or(ExplainError::Unknown)?;
        let function = guarded.0.as_ref().map_err(|_| ExplainError::Unknown)?;
        Ok(scaler.explain(key, function, Timestamp::now()))
    }
}

impl Scaler {
    fn explain(&self, key: &FunctionKey, function: &Function, wall: Timestamp) -> Value {
        let (now, workloads) = (self.now(), self.workloads(key, function));
        let mut trackers = self.trackers.lock();
        let mut empty = FunctionTracker::default();
        let tracker = trackers.get_mut(key).unwrap_or(&mut empty);
        let schedules = function.spec.scaling.as_ref().and_then(|s| s.schedules.as_deref()).unwrap_or_default();
        let wanted = tracker.timetable.as_mut().map(|timetable| timetable.wanted(schedules, wall));
        let cold_start = function.spec.timeouts().cold_start();
        let revisions = workloads.deployments.iter().map(|(name, deployment)| {
            let facts = policy::Facts::of(&workloads, name, cold_start, wanted.map_or(0, |w| w.min), wall);
            let (policy, _) = policy::of(function, facts, wall);
            self.explain_revision(key, name, deployment, &policy, tracker.get(name), now)
        });
        let revisions: Vec<_> = revisions.collect();
        let demand = self.demand.lock();
        let activators: Vec<_> = demand
            .activators(now)
            .into_iter()
            .map(|a| {
                json!({
                    "address": a.source.address.to_string(),
                    "podUid": a.source.pod,
                    "process": a.process,
                    "awaited": a.required,
                    "heardSecondsAgo": a.age.map(seconds),
                    "revisions": a.revisions,
                })
            })
            .collect();
        json!({
            "function": key.to_string(),
            "at": wall.to_string(),
            "mayGoDown": demand.complete(now),
            "activators": activators,
            "schedules": wanted.map(|w| json!({"min": w.min, "until": w.until.to_string()})),
            "idleHistogram": function.status.as_ref().and_then(|s| s.idle_histogram.as_deref()),
            "revisions": revisions,
        })
    }

    fn explain_revision(
        &self,
        key: &FunctionKey,
        name: &str,
        deployment: &DeploymentObject,
        policy: &Policy,
        tracker: Option<&RevisionTracker>,
        now: Duration,
    ) -> Value {
        let mut aggregate = self.demand.lock();
        let demand = aggregate.demand(key, name, now);
        let activators = aggregate.by_activator(key, name, now).into_iter().map(|report| {
            json!({
                "address": report.source.address.to_string(),
                "ageSeconds": seconds(report.age),
                "inFlight": report.in_flight,
                "queued": report.queued,
                "held": report.held,
                "arrivals": report.arrivals,
                "pods": report.pods,
            })
        });
        let activators: Vec<_> = activators.collect();
        let loads = aggregate.loads(key, name);
        let drains = tracker.into_iter().flat_map(|t| t.drain.victims()).map(|(pod, since)| {
            let elapsed = now.saturating_sub(since);
            let (reports, in_flight) = aggregate.pod_reports(key, name, pod);
            json!({
                "pod": pod,
                "markedSecondsAgo": seconds(elapsed),
                "inFlight": loads.get(pod).copied().unwrap_or(0),
                // Without a timeout: whether the pod is empty, not whether the timeout has passed.
                "drained": drain::drained(elapsed, &reports, in_flight, Duration::MAX).is_ok(),
            })
        });
        let drains: Vec<_> = drains.collect();
        let decisions = tracker.into_iter().flat_map(|t| t.history.entries());
        let decisions: Vec<_> = decisions
            .map(|entry| {
                json!({
                    "at": entry.at.to_string(),
                    "from": entry.from,
                    "to": entry.decision.replicas,
                    "reason": entry.decision.reason.word(),
                    "why": entry.decision.to_string(),
                })
            })
            .collect();
        json!({
            "name": name,
            "desired": deployment.desired(),
            "ready": deployment.ready(),
            "demand": {
                "inFlight": demand.in_flight,
                "queued": demand.queued,
                "arrivals": demand.arrivals,
                "completions": demand.completions,
                "abandoned": demand.abandoned,
                "requestSeconds": demand.request_us as f64 / 1e6,
                "busySeconds": demand.busy_us as f64 / 1e6,
            },
            "activators": activators,
            "policy": policy_json(policy),
            "decided": tracker.and_then(|t| t.last_decision).as_ref().map(decision_json),
            "decisions": decisions,
            "drains": drains,
            "failedWrites": tracker.map_or(0, |t| t.failures),
        })
    }
}

fn policy_json(policy: &Policy) -> Value {
    json!({
        "min": policy.min,
        "max": policy.max,
        "initial": policy.initial,
        "rollout": policy.held,
        "scheduled": policy.scheduled,
        "metric": match policy.metric { Metric::Concurrency => "concurrency", Metric::Rps => "rps" },
        "target": policy.target,
        "concurrencyLimit": policy.limit,
        "idleTimeoutSeconds": seconds(policy.idle_timeout),
        "stableWindowSeconds": seconds(policy.stable_window),
        "panicWindowSeconds": seconds(policy.panic_window),
        "scaleDownDelaySeconds": seconds(policy.scale_down_delay),
        "prewarm": policy.prewarm.is_some(),
        "paused": policy.paused,
    })
}

fn decision_json(decision: &Decision) -> Value {
    let Seen { concurrency, queued, service, start, stable, panic, swift, target: _, idle } = decision.seen;
    json!({
        "replicas": decision.replicas,
        "reason": decision.reason.word(),
        "why": decision.to_string(),
        "concurrency": concurrency,
        "queued": queued,
        "serviceSeconds": service.map(seconds),
        "startSeconds": start.map(seconds),
        "averages": {"stable": stable, "panic": panic, "lastSecond": swift},
        "idleSeconds": seconds(idle),
    })
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1000.0).round() / 1000.0
}
