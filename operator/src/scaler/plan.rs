//! Computes the writes for one Function, without performing them.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rouse_autoscaler::{Observed, Reason, decide};
use rouse_crds::{Function, pod::FunctionPod};
use tokio::time::Instant;

use super::{
    Scaler,
    drain::{self, DrainTracker},
    idle_histogram::{self, StatusPatch},
    policy,
    tracker::{CACHE_TIMEOUT, RevisionTracker},
    write::ScaleChange,
};
use crate::{cluster::key::FunctionKey, workloads::Workloads};

/// Deletion costs that are written before the next reconcile: the load may have returned in the meantime.
const MAX_COSTS: usize = 50;

/// Writes for one Function.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Pods and their new deletion costs; 0 for a former victim that stays.
    pub(super) deletion_costs: Vec<(String, i64)>,
    pub(super) changes: Vec<ScaleChange>,
    pub(super) idle_histogram: Option<StatusPatch>,
    pub(super) requeue_at: Option<Instant>,
}

impl Plan {
    fn requeue(&mut self, at: Instant) {
        self.requeue_at = earliest(self.requeue_at, at);
    }
}

pub(super) fn earliest(a: Option<Instant>, b: Instant) -> Option<Instant> {
    Some(a.map_or(b, |a| a.min(b)))
}

impl Scaler {
    /// Returns the workloads of a Function.
    pub(super) fn workloads(&self, key: &FunctionKey, function: &Function) -> Workloads {
        Workloads::of(&self.caches, key, &function.uid().unwrap_or_default(), |_| {})
    }

    /// Decides for every revision. Does no I/O, so the lock is never held across an await.
    pub(super) fn plan(&self, key: &FunctionKey, function: &Function, wall: Timestamp) -> Plan {
        let workloads = self.workloads(key, function);
        let now = self.now();
        let mut plan = Plan::default();
        let mut trackers = self.trackers.lock();
        let tracker = trackers.entry(key.clone()).or_default();
        tracker
            .revisions
            .retain(|(name, revision)| workloads.deployments.get(name).is_some_and(|d| d.metadata.uid == revision.uid));
        let schedules = function.spec.scaling.as_ref().and_then(|s| s.schedules.as_deref()).unwrap_or_default();
        let mut scheduled = 0;
        if schedules.is_empty() {
            tracker.timetable = None;
        } else {
            let wanted = tracker.timetable.get_or_insert_default().wanted(schedules, wall);
            scheduled = wanted.min;
            plan.requeue(Instant::now() + wanted.again);
        }
        // Sorted by name, and so by age: names end in a number with leading zeros.
        let cold_start = function.spec.timeouts().cold_start();
        let drain_timeout =
            function.spec.scaling().drain_timeout().unwrap_or_else(|| function.spec.timeouts().response());
        let mut limited = None;
        for (name, deployment) in &workloads.deployments {
            let learned = tracker.learned();
            let revision = tracker.revision(name, || {
                let mut state = idle_histogram::restore(function, now);
                // A new revision most likely serves requests as fast as the one before.
                state.assume(learned);
                RevisionTracker::new(deployment.metadata.uid.clone(), state)
            });
            // An outdated count would cancel the removal of the pods that were selected for it.
            if let Some(at) = revision.wait_for_cache(deployment) {
                plan.requeue(at);
                continue;
            }
            let facts = policy::Facts::of(&workloads, name, cold_start, scheduled, wall);
            let (policy, valid_for) = policy::of(function, facts, wall);
            let (demand, complete) = {
                let mut aggregate = self.demand.lock();
                (aggregate.demand(key, name, now), aggregate.complete(now))
            };
            let observed = Observed { desired: deployment.desired(), ready: deployment.ready() };
            revision.external.observe(observed.desired);
            let decision = decide(now, &demand, &observed, &policy, &mut revision.state);
            revision.external.decided(decision.replicas, decision.reason);
            revision.history.record(wall, observed.desired, &decision);
            revision.last_decision = Some(decision);
            limited = Some(limited.unwrap_or(false) || decision.reason == Reason::Max);
            let times = [decision.wake_at.map(|at| self.origin + at), valid_for.map(|time| Instant::now() + time)];
            times.into_iter().flatten().for_each(|at| plan.requeue(at));
            let (from, wanted) = (observed.desired, decision.replicas);
            let pods: Vec<_> =
                workloads.pods.iter().filter(|p| p.revision() == Some(name) && !p.ended()).cloned().collect();
            revision.drain.observe(&pods, now);
            // Missing data is never read as low demand: without a report of every activator, nothing is scaled down.
            if wanted < from && !complete {
                continue;
            }
            let to = self.drain(key, name, &pods, (from, wanted), drain_timeout, &mut revision.drain, &mut plan);
            if to != from {
                let external = revision.external.change();
                revision.external.request(to);
                plan.changes.push(ScaleChange { deployment: Arc::clone(deployment), from, to, decision, external });
            }
        }
        if let Some(at) = limited.and_then(|limited| self.record_max(key, limited)) {
            plan.requeue(at);
        }
        let mut persisted = tracker.persisted;
        let (patch, requeue_at) = persisted.next_write(function, |traffic| tracker.idle_histogram(traffic));
        tracker.persisted = persisted;
        plan.idle_histogram = patch;
        requeue_at.into_iter().for_each(|at| plan.requeue(at));
        plan
    }

    /// Plans deletion costs, and returns the next count on the way from `from` to `wanted`.
    #[allow(clippy::too_many_arguments, reason = "one step of the plan")]
    fn drain(
        &self,
        key: &FunctionKey,
        revision: &str,
        pods: &[Arc<FunctionPod>],
        (from, wanted): (u32, u32),
        timeout: std::time::Duration,
        tracker: &mut DrainTracker,
        plan: &mut Plan,
    ) -> u32 {
        let now = self.now();
        if wanted >= from && tracker.victims().next().is_none() {
            return wanted;
        }
        let aggregate = self.demand.lock();
        let loads = aggregate.loads(key, revision);
        let requeue_at = std::cell::Cell::new(None);
        let step = drain::step(
            pods,
            from,
            wanted,
            |pod| loads.get(pod).copied().unwrap_or(0),
            |pod| {
                let Some(since) = tracker.marked_since(pod) else { return false };
                let (reports, in_flight) = aggregate.pod_reports(key, revision, pod);
                match drain::drained(now.saturating_sub(since), &reports, in_flight, timeout) {
                    Ok(()) => true,
                    Err(remaining) => {
                        requeue_at.set(earliest(requeue_at.get(), Instant::now() + remaining));
                        false
                    }
                }
            },
        );
        drop(aggregate);
        requeue_at.get().into_iter().for_each(|at| plan.requeue(at));
        for (pod, cost) in step.unmark.into_iter().map(|pod| (pod, 0)).chain(step.mark) {
            // Repeats the write if the watch does not show it in time.
            plan.requeue(Instant::now() + CACHE_TIMEOUT);
            if plan.deletion_costs.len() >= MAX_COSTS {
                plan.requeue(Instant::now());
                break;
            }
            if tracker.request(&pod, cost, now, CACHE_TIMEOUT) {
                plan.deletion_costs.push((pod, cost));
            }
        }
        step.replicas
    }
}
