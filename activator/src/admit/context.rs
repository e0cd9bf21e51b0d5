//! Dependencies and limits that all breakers share.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    budget::{Budget, Caps},
    wake_tokens::SharedRate,
};
use crate::{
    demand::Ledger,
    endpoints::{Dialer, Prober},
    metrics::{Metrics, QueueUsage},
    rate_limit::Rate,
    wake::Scaler,
};

/// Limits of this process. Limits of a Function are in its [`Policy`](super::Policy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Caps on what is queued in the process.
    pub process: Caps,
    /// Caps on what is queued in one namespace.
    pub namespace: Caps,
    /// Rate of wakes of one function.
    pub function_wakes: Rate,
    /// Rate of wakes of all functions in one namespace together.
    pub namespace_wakes: Rate,
    /// Rate of wakes of all functions together.
    pub process_wakes: Rate,
    /// How long requests wait for a pod that is unschedulable: a node may be on its way.
    pub unschedulable_grace: Duration,
}

/// Each keeps a connection open for some seconds at most; beyond this number connections are closed at once.
const MAX_ABORTING: usize = 1024;

/// Dependencies and limits that all breakers share.
#[derive(Debug)]
pub struct Context {
    /// Scales revisions from zero.
    pub scaler: Arc<dyn Scaler>,
    /// Counts demand.
    pub ledger: Arc<Ledger>,
    /// Limits of this process.
    pub bounds: Bounds,
    /// What is queued in this process.
    pub budget: Arc<Budget>,
    /// Rate limit of wakes of all functions.
    pub(super) wakes: Mutex<SharedRate>,
    /// Connects to pods.
    pub dialer: Dialer,
    /// Prometheus metrics.
    pub metrics: Arc<Metrics>,
    /// Probes endpoints.
    pub prober: Arc<Prober>,
    /// Bounds the aborted requests whose pods have not closed their connections yet.
    pub(crate) aborting: Arc<Semaphore>,
}

impl Context {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        scaler: Arc<dyn Scaler>,
        bounds: Bounds,
        dialer: Dialer,
        metrics: Arc<Metrics>,
        ledger: Arc<Ledger>,
    ) -> Arc<Self> {
        let budget = Arc::new(Budget::new(bounds.process));
        metrics.watch_queue({
            let budget = budget.clone();
            move || {
                let Caps { requests, bytes } = budget.used();
                QueueUsage { requests, bytes }
            }
        });
        let prober = Prober::new(dialer, metrics.clone());
        let aborting = Arc::new(Semaphore::new(MAX_ABORTING));
        let wakes = Mutex::new(SharedRate::new(bounds.process_wakes));
        Arc::new(Self { scaler, ledger, bounds, budget, wakes, dialer, metrics, prober, aborting })
    }
}

#[cfg(any(test, fuzzing))]
impl Bounds {
    /// Limits that no test reaches.
    pub(crate) fn generous() -> Self {
        let caps = Caps { requests: 1 << 30, bytes: 1 << 30 };
        let rate = Rate { burst: 1 << 20, interval: Duration::ZERO };
        Self {
            process: caps,
            namespace: caps,
            function_wakes: rate,
            namespace_wakes: rate,
            process_wakes: rate,
            unschedulable_grace: Duration::from_secs(10),
        }
    }
}
