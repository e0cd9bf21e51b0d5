//! What is to be done about a Function: decided, and not done yet.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use rouse_autoscaler::{Decision, Observed, decide};
use rouse_crds::{Function, pod::FunctionPod};
use tokio::time::Instant;

use super::{
    Scaler,
    drain::{self, Drain},
    habits,
    memory::{CATCH_UP, Memory},
    policy,
};
use crate::{
    cluster::{children::DeploymentObject, key::FunctionKey},
    workloads::Workloads,
};

/// A count that is to be written.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) deployment: Arc<DeploymentObject>,
    pub(crate) from: u32,
    /// What may be asked for now.
    pub(crate) to: u32,
    /// Why, and what is wanted in the end.
    pub(crate) decision: Decision,
    /// What somebody else has changed the count from and to, if that is what is corrected.
    pub(crate) foreign: Option<(u32, u32)>,
}

/// Marks that are written before it is looked again: the load may have come back meanwhile.
const MARKS: usize = 50;

/// What is to be done about one Function.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Pods and the deletion costs that they are to have; 0 for one that was chosen to go and stays after all.
    pub(super) marks: Vec<(String, i64)>,
    pub(super) changes: Vec<Change>,
    pub(super) habits: Option<habits::Write>,
    /// When to look again.
    pub(super) again: Option<Instant>,
}

impl Plan {
    fn look_at(&mut self, at: Instant) {
        self.again = sooner(self.again, at);
    }
}

pub(super) fn sooner(a: Option<Instant>, b: Instant) -> Option<Instant> {
    Some(a.map_or(b, |a| a.min(b)))
}

impl Scaler {
    /// Returns the workloads of a Function.
    pub(super) fn found(&self, key: &FunctionKey, function: &Function) -> Workloads {
        Workloads::of(&self.caches, key, &function.uid().unwrap_or_default(), |_| {})
    }

    /// Decides for every revision. Does no I/O, so the lock is never held across a wait.
    pub(super) fn plan(&self, key: &FunctionKey, function: &Function, wall: Timestamp) -> Plan {
        let found = self.found(key, function);
        let now = self.now();
        let mut plan = Plan::default();
        let mut memories = self.memory.lock();
        let memories = memories.entry(key.clone()).or_default();
        memories
            .revisions
            .retain(|(name, memory)| found.deployments.get(name).is_some_and(|d| d.metadata.uid == memory.uid));
        let schedules = function.spec.scaling.as_ref().and_then(|s| s.schedules.as_deref()).unwrap_or_default();
        let mut scheduled = 0;
        if schedules.is_empty() {
            memories.timetable = None;
        } else {
            let wanted = memories.timetable.get_or_insert_default().wanted(schedules, wall);
            scheduled = wanted.min;
            plan.look_at(Instant::now() + wanted.again);
        }
        // Names end in the number with leading zeros, so the last is the newest.
        let (cold_start, response) = (function.spec.timeouts().cold_start(), function.spec.timeouts().response());
        for (name, deployment) in &found.deployments {
            let learned = memories.learned();
            let memory = memories.of(name, || {
                let mut state = habits::restored(function, now);
                // A new revision is most likely as fast as the one before.
                state.assume(learned);
                Memory::new(deployment.metadata.uid.clone(), state)
            });
            // Not before the cache has what was written: by an old count, the pods that were just marked would be spared.
            if let Some(at) = memory.catching_up(deployment) {
                plan.look_at(at);
                continue;
            }
            let facts = policy::Facts::of(&found, name, cold_start, scheduled, wall);
            let (policy, proof_ends) = policy::of(function, facts, wall);
            let (demand, complete) = {
                let mut aggregate = self.demand.lock();
                (aggregate.demand(key, name, now), aggregate.complete(now))
            };
            let observed = Observed { desired: deployment.desired(), ready: deployment.ready() };
            memory.counts.see(observed.desired);
            let decision = decide(now, &demand, &observed, &policy, &mut memory.state);
            memory.counts.decided(decision.replicas, decision.reason);
            memory.journal.note(wall, observed.desired, &decision);
            memory.last = Some(decision);
            let times = [decision.wake_at.map(|at| self.origin + at), proof_ends.map(|left| Instant::now() + left)];
            times.into_iter().flatten().for_each(|at| plan.look_at(at));
            let (from, wanted) = (observed.desired, decision.replicas);
            let pods: Vec<_> =
                found.pods.iter().filter(|p| p.revision() == Some(name) && !p.ended()).cloned().collect();
            memory.drain.see(&pods, now);
            // What is not known is never taken for little: without word from every activator nothing goes down.
            if wanted < from && !complete {
                continue;
            }
            let to = self.drain(key, name, &pods, (from, wanted), response, &mut memory.drain, &mut plan);
            if to != from {
                let foreign = memory.counts.foreign();
                memory.counts.ask(to);
                plan.changes.push(Change { deployment: Arc::clone(deployment), from, to, decision, foreign });
            }
        }
        let (write, again) = memories.keep_habits(function);
        plan.habits = write;
        again.into_iter().for_each(|at| plan.look_at(at));
        plan
    }

    /// Plans marks, and yields the count that may be asked for on the way between two.
    #[allow(clippy::too_many_arguments, reason = "a part of the plan with its own name")]
    fn drain(
        &self,
        key: &FunctionKey,
        revision: &str,
        pods: &[Arc<FunctionPod>],
        (from, wanted): (u32, u32),
        bound: std::time::Duration,
        memory: &mut Drain,
        plan: &mut Plan,
    ) -> u32 {
        let now = self.now();
        // Nothing goes, and nothing was to go: nothing to ask the activators.
        if wanted >= from && memory.under_way().next().is_none() {
            return wanted;
        }
        let aggregate = self.demand.lock();
        let loads = aggregate.loads(key, revision);
        let again = std::cell::Cell::new(None);
        let step = drain::step(
            pods,
            from,
            wanted,
            |pod| loads.get(pod).copied().unwrap_or(0),
            |pod| {
                let Some(since) = memory.since(pod) else { return false };
                let (words, in_flight) = aggregate.words(key, revision, pod);
                match drain::drained(now.saturating_sub(since), &words, in_flight, bound) {
                    Ok(()) => true,
                    Err(left) => {
                        again.set(sooner(again.get(), Instant::now() + left));
                        false
                    }
                }
            },
        );
        drop(aggregate);
        again.get().into_iter().for_each(|at| plan.look_at(at));
        for (pod, cost) in step.spare.into_iter().map(|pod| (pod, 0)).chain(step.mark) {
            // The watch shows it soon; should it not, it is asked for again.
            plan.look_at(Instant::now() + CATCH_UP);
            if plan.marks.len() >= MARKS {
                plan.look_at(Instant::now());
                break;
            }
            if memory.ask(&pod, cost, now, CATCH_UP) {
                plan.marks.push((pod, cost));
            }
        }
        step.count
    }
}
