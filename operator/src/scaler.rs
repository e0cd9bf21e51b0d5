//! Demand becomes replicas.
//!
//! For each Function that something was heard of (a frame of an activator, a change in the cluster, a time that was set)
//! every revision is decided anew by `rouse-autoscaler`, and a count that differs is patched, on the condition that the
//! Deployment is still what it was decided from. One task at a time works on a Function, so of a Deployment there is at
//! most one write under way.

pub mod aggregate;
pub mod discovery;
pub mod drain;
mod explain;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod habits;
pub mod journal;
mod memory;
pub mod pace;
mod plan;
pub mod policy;
pub mod stream;
mod write;

pub use explain::{Explainer, NotExplained, Rule};

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use kube::{Client, ResourceExt as _};
use parking_lot::Mutex;
use rouse_crds::{Function, demand::Frame};
use tokio::time::Instant;

use crate::{
    cluster::{caches::Caches, key::FunctionKey},
    runtime::queue::WorkQueue,
    telemetry::{events::Events, metrics::Metrics},
    workloads::outcomes::Outcomes,
};
use aggregate::{Aggregate, Source};
use memory::{CATCH_UP, Memories};
use pace::Pace;
use plan::{Change, Plan, sooner};

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
    /// How fast all Functions together are written.
    pace: Pace,
    /// From when time is counted.
    origin: Instant,
}

/// No look takes longer, or Functions that the API server does not answer for would keep others from being looked at.
const LOOK: Duration = Duration::from_secs(60);

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
            pace: Pace::default(),
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

    /// Throws away what was heard of revisions that are no more.
    fn sweep(&self) {
        let deployments = &self.caches.deployments;
        self.demand.lock().keep(|function, revision| deployments.get(function, revision).is_some());
    }

    /// Looks at one Function, writes what differs, and says when to look again.
    ///
    /// Cancelling it between two writes leaves a state from which the next look goes on.
    pub async fn look(self: Arc<Self>, key: FunctionKey) -> Option<Instant> {
        let name = key.clone();
        tokio::time::timeout(LOOK, self.look_at(key)).await.unwrap_or_else(|_| {
            tracing::warn!(function = %name, limit = ?LOOK, "The pods of a Function could not be scaled in time; it is looked at anew");
            Some(Instant::now() + CATCH_UP)
        })
    }

    async fn look_at(self: Arc<Self>, key: FunctionKey) -> Option<Instant> {
        let Some(guarded) = self.caches.functions.get(&key, &key.name) else {
            self.memory.lock().remove(&key);
            self.demand.lock().forget(&key);
            // A late frame may have spoken of it after the reconciler had let it go.
            self.outcomes.keep(&key, |_| false);
            return None;
        };
        // One that cannot be read keeps its pods as they are.
        let Ok(function) = &guarded.0 else { return None };
        if function.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let Plan { marks, changes, habits, mut again } = self.plan(&key, function, Timestamp::now());
        // A pod that stays gets requests again before more pods are asked for; one that is to go is marked before it goes.
        for (pod, cost) in marks {
            if let Err(error) = write::mark(&self, &key, &pod, cost).await {
                tracing::warn!(function = %key, pod, cost, %error, "A pod's deletion cost could not be set and will be tried again");
                again = sooner(again, Instant::now() + CATCH_UP);
            }
        }
        for change in changes {
            let retry = self.write(&key, function, &change).await;
            again = retry.map_or(again, |at| sooner(again, at));
        }
        if let Some(habits) = habits
            && let Err(error) = habits::write(&self, &key, function, &habits).await
        {
            tracing::warn!(function = %key, %error, "What was learned of idle times could not be written and will be tried again later");
            self.memory.lock().entry(key).or_default().habits_lost();
        }
        again
    }

    /// Writes one count. Yields when to try again, if it could not be written.
    async fn write(&self, key: &FunctionKey, function: &Function, change: &Change) -> Option<Instant> {
        let name = change.deployment.name_any();
        let outcome = write::scale(self, key, change).await;
        let retry = {
            let mut memories = self.memory.lock();
            let (_, memory) = memories.get_mut(key)?.revisions.iter_mut().find(|(of, _)| *of == name)?;
            match &outcome {
                Ok(()) => {
                    memory.failures = 0;
                    memory.state.wrote(change.to);
                    memory.counts.wrote();
                    memory.written = Some((change.deployment.resource_version(), Instant::now()));
                    None
                }
                Err(_) => {
                    memory.failures = memory.failures.saturating_add(1);
                    Some(crate::runtime::backoff::QUICK.after(memory.failures))
                }
            }
        };
        match outcome {
            Ok(()) => write::tell(self, function, change).await,
            Err(error) if write::is_race(&error) => {
                tracing::debug!(function = %key, revision = name, "A Deployment changed while its count was decided; it is decided anew");
            }
            Err(error) => {
                tracing::warn!(function = %key, revision = name, %error, retry_in = ?retry, "A count could not be written and will be decided anew");
            }
        }
        retry.map(|wait| Instant::now() + wait)
    }
}

#[cfg(test)]
mod tests;
