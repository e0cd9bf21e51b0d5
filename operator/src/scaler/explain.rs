//! What the scaler knows of a Function and why it does what it does, as JSON for a human.

use std::{fmt, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use rouse_autoscaler::{Decision, Metric, Policy, Seen};
use rouse_crds::Function;
use serde_json::{Value, json};

use super::{Scaler, drain, memory::Memory, policy};
use crate::cluster::{children::DeploymentObject, key::FunctionKey};

/// The scaler, while this replica leads; every clone has the same.
#[derive(Clone, Default)]
pub struct Explainer(Arc<Mutex<Option<Arc<Scaler>>>>);

impl fmt::Debug for Explainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Explainer").field(&self.0.lock().is_some()).finish()
    }
}

/// Why nothing is explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotExplained {
    /// Another replica scales.
    NotLeading,
    /// There is no such Function, or it cannot be read.
    Unknown,
}

/// Takes the scaler away from an [`Explainer`] when the rule ends.
#[derive(Debug)]
pub struct Rule(Explainer);

impl Drop for Rule {
    fn drop(&mut self) {
        *self.0.0.lock() = None;
    }
}

impl Explainer {
    /// Explains by `scaler` until what is returned is dropped.
    #[must_use]
    pub fn begin(&self, scaler: &Arc<Scaler>) -> Rule {
        *self.0.lock() = Some(Arc::clone(scaler));
        Rule(self.clone())
    }

    /// What is known of the Function, as of now.
    ///
    /// # Errors
    ///
    /// If there is nothing to be said.
    pub fn explain(&self, key: &FunctionKey) -> Result<Value, NotExplained> {
        let scaler = self.0.lock().clone().ok_or(NotExplained::NotLeading)?;
        let guarded = scaler.caches.functions.get(key, &key.name).ok_or(NotExplained::Unknown)?;
        let function = guarded.0.as_ref().map_err(|_| NotExplained::Unknown)?;
        Ok(scaler.explain(key, function, Timestamp::now()))
    }
}

impl Scaler {
    fn explain(&self, key: &FunctionKey, function: &Function, wall: Timestamp) -> Value {
        let (now, found) = (self.now(), self.found(key, function));
        let mut memories = self.memory.lock();
        let mut nothing = super::Memories::default();
        let memories = memories.get_mut(key).unwrap_or(&mut nothing);
        let schedules = function.spec.scaling.as_ref().and_then(|s| s.schedules.as_deref()).unwrap_or_default();
        let wanted = memories.timetable.as_mut().map(|timetable| timetable.wanted(schedules, wall));
        let cold_start = function.spec.timeouts().cold_start();
        let revisions = found.deployments.iter().map(|(name, deployment)| {
            let facts = policy::Facts::of(&found, name, cold_start, wanted.map_or(0, |w| w.min), wall);
            let (policy, _) = policy::of(function, facts, wall);
            self.explain_revision(key, name, deployment, &policy, memories.get(name), now)
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
                    "awaited": a.awaited,
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
            "habits": function.status.as_ref().and_then(|s| s.habits.as_deref()),
            "revisions": revisions,
        })
    }

    fn explain_revision(
        &self,
        key: &FunctionKey,
        name: &str,
        deployment: &DeploymentObject,
        policy: &Policy,
        memory: Option<&Memory>,
        now: Duration,
    ) -> Value {
        let mut aggregate = self.demand.lock();
        let demand = aggregate.demand(key, name, now);
        let activators = aggregate.parts(key, name, now).into_iter().map(|part| {
            json!({
                "address": part.source.address.to_string(),
                "ageSeconds": seconds(part.age),
                "inFlight": part.in_flight,
                "queued": part.queued,
                "arrivals": part.arrivals,
                "pods": part.pods,
            })
        });
        let activators: Vec<_> = activators.collect();
        let loads = aggregate.loads(key, name);
        let drains = memory.into_iter().flat_map(|m| m.drain.under_way()).map(|(pod, since)| {
            let passed = now.saturating_sub(since);
            let (words, in_flight) = aggregate.words(key, name, pod);
            json!({
                "pod": pod,
                "markedSecondsAgo": seconds(passed),
                "inFlight": loads.get(pod).copied().unwrap_or(0),
                // With no bound: whether it is empty, and not whether it has had its time.
                "drained": drain::drained(passed, &words, in_flight, Duration::MAX).is_ok(),
            })
        });
        let drains: Vec<_> = drains.collect();
        let decisions = memory.into_iter().flat_map(|m| m.journal.entries());
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
            "policy": of_policy(policy),
            "decided": memory.and_then(|m| m.last).as_ref().map(of_decision),
            "decisions": decisions,
            "drains": drains,
            "failedWrites": memory.map_or(0, |m| m.failures),
        })
    }
}

fn of_policy(policy: &Policy) -> Value {
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

fn of_decision(decision: &Decision) -> Value {
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
