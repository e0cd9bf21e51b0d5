//! Autoscaling: turns demand into replicas.
//!
//! A Function is reconciled after a demand frame, a change in the cluster, or a scheduled requeue. `rouse-autoscaler`
//! decides for each revision, and a count that differs is patched, on the condition that the Deployment has not changed
//! since. One task at a time works on a Function, so a Deployment has at most one write in flight.

pub mod aggregate;
pub mod discovery;
pub mod drain;
mod explain;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod history;
mod idle_histogram;
mod plan;
pub mod policy;
pub mod rate_limiter;
pub mod stream;
mod tracker;
mod write;

pub use explain::{ExplainError, Explainer, Registration};

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
    workloads::{max_reached::MaxReached, outcomes::Outcomes},
};
use aggregate::{Aggregate, Source};
use plan::{Plan, earliest};
use rate_limiter::RateLimiter;
use tracker::{CACHE_TIMEOUT, FunctionTracker};
use write::ScaleChange;

/// The scaler of the leading replica.
#[allow(missing_debug_implementations, reason = "kube's Client and Recorder have none of use")]
pub struct Scaler {
    pub(crate) client: Client,
    pub(crate) caches: Caches,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    /// Functions to reconcile.
    queue: Arc<WorkQueue<FunctionKey>>,
    demand: Mutex<Aggregate>,
    /// Request results, for the reconciler of Functions.
    outcomes: Arc<Outcomes>,
    /// Functions that `scaling.max` limits, and the queue of the reconciler, which reports them.
    max_reached: Arc<MaxReached>,
    reconciler: Option<Arc<WorkQueue<FunctionKey>>>,
    /// State by Function. Bounded by the Functions that exist.
    trackers: Mutex<HashMap<FunctionKey, FunctionTracker>>,
    /// Limits the writes of all Functions together.
    rate_limiter: RateLimiter,
    /// Origin of all durations.
    origin: Instant,
}

/// Deadline of one reconcile, so that Functions without a response of the API server do not block others.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(60);

impl Scaler {
    /// Creates a scaler without demand. `queue` is the queue of its workers.
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
            max_reached: Arc::default(),
            reconciler: None,
            trackers: Mutex::default(),
            rate_limiter: RateLimiter::default(),
            origin: Instant::now(),
        }
    }

    /// Notifies this queue of Functions whose [`MaxReached`] changes.
    #[must_use]
    pub fn reporting_to(mut self, reconciler: Arc<WorkQueue<FunctionKey>>) -> Self {
        self.reconciler = Some(reconciler);
        self
    }

    /// Returns the Functions that `scaling.max` limits.
    pub fn max_reached(&self) -> Arc<MaxReached> {
        Arc::clone(&self.max_reached)
    }

    /// Records whether `max` limited a decision. Returns when to decide again.
    fn record_max(&self, key: &FunctionKey, limited: bool) -> Option<Instant> {
        if self.max_reached.record(key, limited, Instant::now())
            && let Some(reconciler) = &self.reconciler
        {
            reconciler.add(key.clone());
        }
        self.max_reached.ends_at(key)
    }

    /// Returns the time since the origin in whole microseconds, the unit of demand, so that averages have no rounding error.
    fn now(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Returns the request results that the activators report.
    pub fn outcomes(&self) -> Arc<Outcomes> {
        Arc::clone(&self.outcomes)
    }

    /// Replaces the set of activators; see [`Aggregate::set_sources`].
    pub fn set_sources(&self, sources: &HashMap<Source, bool>) {
        self.update_demand(|demand, now| demand.set_sources(sources, now));
    }

    /// Applies a demand frame of `source`.
    pub fn apply_frame(&self, source: &Source, frame: Frame) {
        for revision in &frame.revisions {
            if let Some(outcomes) = &revision.outcomes {
                let key = FunctionKey::new(&revision.namespace, &revision.function);
                self.outcomes.take(&frame.process, &key, &revision.revision, outcomes);
            }
        }
        self.update_demand(|demand, now| demand.apply_frame(source, frame, now));
    }

    fn update_demand(&self, update: impl FnOnce(&mut Aggregate, Duration) -> Vec<FunctionKey>) {
        let now = self.now();
        let (changed, completed) = {
            let mut demand = self.demand.lock();
            let before = demand.complete(now);
            let changed = update(&mut demand, now);
            (changed, !before && demand.complete(now))
        };
        for key in changed {
            self.queue.add(key);
        }
        if completed {
            tracing::info!("Received demand from every activator; scale-down is enabled");
            for key in self.caches.functions.keys() {
                self.queue.add(key);
            }
        }
    }

    /// Drops the demand of revisions that do not exist any more.
    fn drop_deleted_revisions(&self) {
        let deployments = &self.caches.deployments;
        self.demand.lock().retain_revisions(|function, revision| deployments.get(function, revision).is_some());
    }

    /// Reconciles one Function: decides, writes what differs, and returns when to reconcile it again.
    ///
    /// Cancel-safe between two writes: the next reconcile continues from the state in the cluster.
    pub async fn reconcile(self: Arc<Self>, key: FunctionKey) -> Option<Instant> {
        let name = key.clone();
        tokio::time::timeout(RECONCILE_TIMEOUT, self.reconcile_unbounded(key)).await.unwrap_or_else(|_| {
            tracing::warn!(function = %name, timeout = ?RECONCILE_TIMEOUT, "Scaling of a Function timed out; will retry");
            Some(Instant::now() + CACHE_TIMEOUT)
        })
    }

    async fn reconcile_unbounded(self: Arc<Self>, key: FunctionKey) -> Option<Instant> {
        let Some(guarded) = self.caches.functions.get(&key, &key.name) else {
            self.trackers.lock().remove(&key);
            self.demand.lock().remove_function(&key);
            self.max_reached.forget(&key);
            // A late frame may have added results after the reconciler of Functions removed them.
            self.outcomes.keep(&key, |_| false);
            return None;
        };
        // An invalid Function keeps its pods.
        let Ok(function) = &guarded.0 else { return None };
        if function.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let Plan { deletion_costs, changes, idle_histogram, mut requeue_at } =
            self.plan(&key, function, Timestamp::now());
        // Costs first: a pod that stays receives requests again before more pods are created, and a victim is marked before
        // it is deleted.
        for (pod, cost) in deletion_costs {
            if let Err(error) = write::set_deletion_cost(&self, &key, &pod, cost).await {
                tracing::warn!(function = %key, pod, cost, %error, "Failed to set the deletion cost of a pod; will retry");
                requeue_at = earliest(requeue_at, Instant::now() + CACHE_TIMEOUT);
            }
        }
        for change in changes {
            let retry_at = self.write(&key, function, &change).await;
            requeue_at = retry_at.map_or(requeue_at, |at| earliest(requeue_at, at));
        }
        if let Some(patch) = idle_histogram
            && let Err(error) = idle_histogram::apply(&self, &key, function, &patch).await
        {
            tracing::warn!(function = %key, %error, "Failed to write status.idleHistogram; will retry");
            self.trackers.lock().entry(key).or_default().persisted.write_failed();
        }
        requeue_at
    }

    /// Writes one count. Returns when to retry if the write failed.
    async fn write(&self, key: &FunctionKey, function: &Function, change: &ScaleChange) -> Option<Instant> {
        let name = change.deployment.name_any();
        let result = write::patch_scale(self, key, change).await;
        let retry_in = {
            let mut trackers = self.trackers.lock();
            let (_, revision) = trackers.get_mut(key)?.revisions.iter_mut().find(|(of, _)| *of == name)?;
            match &result {
                Ok(()) => {
                    revision.failures = 0;
                    revision.state.wrote(change.to);
                    revision.external.corrected();
                    revision.pending_write = Some((change.deployment.resource_version(), Instant::now()));
                    None
                }
                Err(_) => {
                    revision.failures = revision.failures.saturating_add(1);
                    Some(crate::runtime::backoff::QUICK.after(revision.failures))
                }
            }
        };
        match result {
            Ok(()) => write::record_events(self, function, change).await,
            Err(error) if write::is_conflict(&error) => {
                tracing::debug!(function = %key, revision = name, "Deployment changed since the decision; will decide again");
            }
            Err(error) => {
                tracing::warn!(function = %key, revision = name, %error, ?retry_in, "Failed to patch scale; will retry");
            }
        }
        retry_in.map(|wait| Instant::now() + wait)
    }
}

#[cfg(test)]
mod tests;
