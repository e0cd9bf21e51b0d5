//! Context of a reconcile: client, caches, and the state that the reconciler keeps between calls.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;

use super::{
    apply::Repairs, build::pod_defaults::PodDefaults, rollout::baselines::Baselines, status::last_written::LastWritten,
};
use crate::{
    cluster::{caches::Caches, key::FunctionKey},
    hosts::{Claims, Names},
    telemetry::{events::Events, metrics::Metrics},
    workloads::{max_reached::MaxReached, outcomes::Outcomes},
};

/// Context of a reconcile.
#[allow(missing_debug_implementations, reason = "kube's Client and Recorder have none of use")]
pub struct Context {
    /// Client for writes. All reads are from `caches`.
    pub client: kube::Client,
    /// Local caches.
    pub caches: Caches,
    /// Ownership of hosts.
    pub claims: Claims,
    /// Hosts, URLs and the activators' Service.
    pub names: Names,
    /// Defaults of the platform for pods. None unless set.
    pub pod_defaults: PodDefaults,
    /// Event recorder.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// Results of requests for each revision.
    pub outcomes: Arc<Outcomes>,
    /// Functions that `scaling.max` limits.
    pub max_reached: Arc<MaxReached>,
    /// Wall clock; tests replace it.
    pub clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Request statistics at the start of the current rollout steps.
    pub(super) baselines: Baselines,
    /// Consecutive failures of each Function. Entries are removed on success and deletion.
    pub(super) failures: Mutex<HashMap<FunctionKey, u32>>,
    /// Written statuses that the watch has not delivered yet.
    pub(super) written: Mutex<HashMap<FunctionKey, LastWritten>>,
    /// Repairs of objects that other clients change.
    pub(super) repairs: Repairs,
}

impl Context {
    /// Creates a context without state.
    pub fn new(
        client: kube::Client,
        caches: Caches,
        claims: Claims,
        names: Names,
        events: Events,
        metrics: Metrics,
        outcomes: Arc<Outcomes>,
    ) -> Self {
        Self {
            client,
            caches,
            claims,
            names,
            pod_defaults: PodDefaults::default(),
            events,
            metrics,
            outcomes,
            max_reached: Arc::default(),
            clock: Box::new(Timestamp::now),
            baselines: Baselines::default(),
            failures: Mutex::default(),
            written: Mutex::default(),
            repairs: Repairs::default(),
        }
    }

    /// Forgets a Function that was deleted.
    pub(super) fn forget(&self, key: &FunctionKey) {
        self.failures.lock().remove(key);
        self.written.lock().remove(key);
        self.repairs.forget(key);
        self.baselines.forget(key);
        if let Some(configs) = &self.caches.configs {
            configs.subscribe(key, []);
        }
        self.outcomes.keep(key, |_| false);
    }
}
