//! What the five steps share: clients, caches, and what the reconciler remembers between two calls.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;

use super::{rollout::baselines::Baselines, status::last_written::LastWritten};
use crate::{
    cluster::{caches::Caches, children::CompactJson, key::FunctionKey},
    hosts::{Claims, Names},
    telemetry::{events::Events, metrics::Metrics},
    workloads::outcomes::Outcomes,
};

/// What a reconcile works with.
#[allow(missing_debug_implementations, reason = "kube's Client and Recorder have none of use")]
pub struct Context {
    /// For writes; everything that is read comes from `caches`.
    pub client: kube::Client,
    /// What there is.
    pub caches: Caches,
    /// Who owns which custom host.
    pub claims: Claims,
    /// Domains and the activators' Service.
    pub names: Names,
    /// Tells users of transitions.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
    /// How the calls of revisions ended.
    pub outcomes: Arc<Outcomes>,
    /// The time of the cluster's clocks.
    pub clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where the present steps of roll-outs began.
    pub(super) baselines: Baselines,
    /// Failures in a row of each Function; one that succeeds or is gone is taken out.
    pub(super) failures: Mutex<HashMap<FunctionKey, u32>>,
    /// Statuses that were written and have not come back through the watch yet.
    pub(super) written: Mutex<HashMap<FunctionKey, LastWritten>>,
    /// What a Deployment looked like after it was repaired in vain: something in the cluster insists on it.
    pub(super) insisted: Mutex<HashMap<String, CompactJson>>,
}

impl Context {
    /// A context that remembers nothing yet.
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
            events,
            metrics,
            outcomes,
            clock: Box::new(Timestamp::now),
            baselines: Baselines::default(),
            failures: Mutex::default(),
            written: Mutex::default(),
            insisted: Mutex::default(),
        }
    }

    /// Forgets a Function that was deleted.
    pub(super) fn forget(&self, key: &FunctionKey) {
        self.failures.lock().remove(key);
        self.written.lock().remove(key);
        self.baselines.forget(key);
        if let Some(configs) = &self.caches.configs {
            configs.watch(key, []);
        }
        self.outcomes.keep(key, |_| false);
    }
}
