//! Demand becomes replicas.
//!
//! For each Function that something was heard of (a frame of an activator, a change in the cluster, a time that was set)
//! every revision is decided anew by `rouse-autoscaler`, and a count that differs is patched, on the condition that the
//! Deployment is still what it was decided from. One task at a time works on a Function, so of a Deployment there is at
//! most one write under way.

pub mod aggregate;
pub mod discovery;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod policy;
pub mod stream;
pub mod victims;
mod write;

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use rouse_autoscaler::{Observed, Reason, State, decide};
use rouse_crds::{Function, demand::Frame, pod::FunctionPod};
use tokio::time::Instant;

use crate::{
    caches::Caches,
    children::{DeploymentObject, owned_by},
    events::Events,
    function::{dereference::Found, observe},
    key::FunctionKey,
    metrics::Metrics,
    outcomes::Outcomes,
    queue::WorkQueue,
};
use aggregate::{Aggregate, Source};

/// After a write the cache has the new state within so long; else it is read as it is.
const CATCH_UP: Duration = Duration::from_secs(2);

/// See the module.
#[allow(missing_debug_implementations, reason = "kube's Client and Recorder have none of use")]
pub struct Scaler {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    /// Functions to look at.
    queue: Arc<WorkQueue<FunctionKey>>,
    demand: Mutex<Aggregate>,
    /// How calls ended, for the reconciler.
    outcomes: Arc<Outcomes>,
    /// By Function and revision. What is gone is taken out.
    memory: Mutex<HashMap<FunctionKey, Memories>>,
    /// From when time is counted.
    origin: Instant,
}

/// Of the revisions of one Function; mostly one, so no map.
type Memories = Vec<(String, Memory)>;

/// What is remembered of a revision.
#[derive(Debug)]
struct Memory {
    /// `uid` of its Deployment.
    uid: Option<String>,
    state: State,
    /// The `resourceVersion` that the last write was decided from, until the cache has a newer one or has had its time.
    written: Option<(Option<String>, Instant)>,
    /// Writes that failed in a row.
    failures: u32,
}

/// A count that is to be written.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) deployment: Arc<DeploymentObject>,
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) reason: Reason,
    /// Pods that are marked to go before the count is patched.
    pub(crate) victims: Vec<String>,
}

/// What is to be done about one Function.
#[derive(Debug, Default)]
struct Plan {
    changes: Vec<Change>,
    /// Pods that were chosen to go and stay after all.
    spared: Vec<String>,
    /// When to look again.
    again: Option<Instant>,
}

impl Scaler {
    /// A scaler that has heard nothing yet. `queue` is what its worker works off.
    pub fn new(
        client: Client,
        caches: Caches,
        events: Events,
        metrics: Metrics,
        queue: Arc<WorkQueue<FunctionKey>>,
    ) -> Self {
        Self {
            client,
            caches,
            events,
            metrics,
            queue,
            demand: Mutex::default(),
            outcomes: Arc::default(),
            memory: Mutex::default(),
            origin: Instant::now(),
        }
    }

    /// In whole microseconds, as demand is counted, so that an average is not off by a rounding.
    fn now(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// How the calls of revisions ended, as the activators tell it.
    pub fn outcomes(&self) -> Arc<Outcomes> {
        Arc::clone(&self.outcomes)
    }

    /// Takes in which activators there are.
    pub fn set_sources(&self, sources: &HashMap<Source, bool>) {
        self.change_demand(|demand, now| demand.set_sources(sources, now));
    }

    /// Takes in what an activator says.
    pub fn frame(&self, source: &Source, frame: Frame) {
        for revision in &frame.revisions {
            if let Some(outcomes) = &revision.outcomes {
                let key = FunctionKey::new(&revision.namespace, &revision.function);
                self.outcomes.take(&frame.process, &key, &revision.revision, outcomes);
            }
        }
        self.change_demand(|demand, now| demand.frame(source, frame, now));
    }

    fn change_demand(&self, change: impl FnOnce(&mut Aggregate, Duration) -> Vec<FunctionKey>) {
        let now = self.now();
        let (touched, whole) = {
            let mut demand = self.demand.lock();
            let before = demand.complete(now);
            let touched = change(&mut demand, now);
            (touched, !before && demand.complete(now))
        };
        for key in touched {
            self.queue.add(key);
        }
        if whole {
            tracing::info!("Every activator is heard; counts may go down");
            for key in self.caches.functions.keys() {
                self.queue.add(key);
            }
        }
    }

    /// Looks at one Function, writes what differs, and says when to look again.
    ///
    /// Cancelling it between two writes leaves a state from which the next look goes on.
    pub async fn look(self: Arc<Self>, key: FunctionKey) -> Option<Instant> {
        let Some(guarded) = self.caches.functions.get(&key, &key.name) else {
            self.memory.lock().remove(&key);
            self.demand.lock().forget(&key);
            return None;
        };
        // One that cannot be read keeps its pods as they are.
        let Ok(function) = &guarded.0 else { return None };
        if function.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let Plan { changes, spared, mut again } = self.plan(&key, function, Timestamp::now());
        for pod in spared {
            if let Err(error) = write::unmark(&self, &key, &pod).await {
                tracing::warn!(function = %key, pod, %error, "A mark could not be taken off a pod and will be tried again");
                again = sooner(again, Instant::now() + CATCH_UP);
            }
        }
        for change in changes {
            let retry = self.write(&key, function, &change).await;
            again = retry.map_or(again, |at| sooner(again, at));
        }
        again
    }

    /// Decides for every revision. Does no I/O, so the lock is never held across a wait.
    fn plan(&self, key: &FunctionKey, function: &Function, wall: Timestamp) -> Plan {
        let uid = function.uid().unwrap_or_default();
        let mine = |d: &Arc<DeploymentObject>| owned_by(&d.metadata, &uid) && d.metadata.deletion_timestamp.is_none();
        let deployments: Vec<_> = self.caches.deployments.of(key).into_iter().filter(mine).collect();
        let pods = self
            .caches
            .pods
            .of(key)
            .into_iter()
            .filter(|p| p.function_uid() == Some(&uid) && p.metadata.deletion_timestamp.is_none());
        let found = Found {
            deployments: deployments.iter().map(|d| (d.name_any(), Arc::clone(d))).collect(),
            pods: pods.collect(),
            ..Found::default()
        };
        let now = self.now();
        let mut plan = Plan::default();
        let mut memories = self.memory.lock();
        let memories = memories.entry(key.clone()).or_default();
        memories.retain(|(name, memory)| found.deployments.get(name).is_some_and(|d| d.metadata.uid == memory.uid));
        // Names end in the number with leading zeros, so the last is the newest.
        let newest = found.deployments.keys().next_back().cloned();
        let cold_start = function.spec.timeouts().cold_start();
        for deployment in deployments {
            let name = deployment.name_any();
            let pods: Vec<_> =
                found.pods.iter().filter(|p| p.revision() == Some(&name) && !p.ended()).cloned().collect();
            let memory = memory_of(memories, &name, || Memory {
                uid: deployment.metadata.uid.clone(),
                state: State::new(now),
                written: None,
                failures: 0,
            });
            if let Some(at) = memory.catching_up(&deployment) {
                plan.again = sooner(plan.again, at);
                continue;
            }
            // Not before the cache has what was written: by an old count, the pods that were just marked would be spared.
            plan.spared.extend(victims::spared(&pods, deployment.desired()));
            let seen = observe::revision(&found, &name, cold_start, wall);
            let facts = policy::Facts {
                name: &name,
                newest: newest.as_ref() == Some(&name),
                created: deployment.creation_timestamp().map(|t| t.0),
                failing: seen.failure.is_some(),
                ready: seen.ready > 0,
            };
            let (policy, proof_ends) = policy::of(function, facts, wall);
            let (demand, complete) = {
                let mut aggregate = self.demand.lock();
                (aggregate.demand(key, &name, now), aggregate.complete(now))
            };
            let observed = Observed { desired: deployment.desired(), ready: deployment.ready() };
            let decision = decide(now, &demand, &observed, &policy, &mut memory.state);
            let times = [decision.wake_at.map(|at| self.origin + at), proof_ends.map(|left| Instant::now() + left)];
            plan.again = times.into_iter().flatten().fold(plan.again, sooner);
            let (from, to) = (observed.desired, decision.replicas);
            // What is not known is never taken for little: without word from every activator nothing goes down.
            if to == from || (to < from && !complete) {
                continue;
            }
            let victims = victims_of(&pods, from, to);
            plan.changes.push(Change { deployment, from, to, reason: decision.reason, victims });
        }
        plan
    }

    /// Writes one count. Yields when to try again, if it could not be written.
    async fn write(&self, key: &FunctionKey, function: &Function, change: &Change) -> Option<Instant> {
        let name = change.deployment.name_any();
        let outcome = write::scale(self, key, function, change).await;
        let mut memories = self.memory.lock();
        let (_, memory) = memories.get_mut(key)?.iter_mut().find(|(of, _)| *of == name)?;
        match outcome {
            Ok(()) => {
                memory.failures = 0;
                memory.state.wrote(change.to);
                memory.written = Some((change.deployment.resource_version(), Instant::now()));
                None
            }
            Err(error) => {
                memory.failures = memory.failures.saturating_add(1);
                let wait = crate::backoff::QUICK.after(memory.failures);
                if write::is_race(&error) {
                    tracing::debug!(function = %key, revision = name, "A Deployment changed while its count was decided; it is decided anew");
                } else {
                    tracing::warn!(function = %key, revision = name, %error, retry_in = ?wait, "A count could not be written and will be decided anew");
                }
                Some(Instant::now() + wait)
            }
        }
    }
}

/// What is remembered of `revision`; a new memory if there is none.
fn memory_of<'a>(memories: &'a mut Memories, revision: &str, new: impl FnOnce() -> Memory) -> &'a mut Memory {
    let at = memories.iter().position(|(name, _)| name == revision).unwrap_or_else(|| {
        memories.reserve_exact(1);
        memories.push((revision.to_owned(), new()));
        memories.len() - 1
    });
    &mut memories[at].1
}

impl Memory {
    /// After a write: until when to wait for the cache to have it.
    fn catching_up(&mut self, deployment: &DeploymentObject) -> Option<Instant> {
        let (version, at) = self.written.as_ref()?;
        let until = *at + CATCH_UP;
        if *version == deployment.resource_version() && Instant::now() < until {
            return Some(until);
        }
        self.written = None;
        None
    }
}

/// Pods to be marked. When all go there is nothing to choose, and from zero there is nobody.
fn victims_of(pods: &[Arc<FunctionPod>], from: u32, to: u32) -> Vec<String> {
    if to == 0 || to >= from {
        return Vec::new();
    }
    let number = pods.len().saturating_sub(usize::try_from(to).unwrap_or(usize::MAX));
    victims::choose(pods, number)
}

fn sooner(a: Option<Instant>, b: Instant) -> Option<Instant> {
    Some(a.map_or(b, |a| a.min(b)))
}

#[cfg(test)]
mod tests;
