//! What every gate shares: the way to the API server, the ledger, the bounds, the metrics.

use std::{sync::Arc, time::Duration};

use super::budget::{Budget, Caps};
use crate::{
    demand::Ledger,
    endpoints::{Dialer, Prober},
    metrics::{Metrics, QueueUsage},
    rate_limit::Rate,
    wake::Scaler,
};

/// What this process allows; what a Function allows stands in its [`Policy`](super::Policy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// What may wait in the whole process.
    pub process: Caps,
    /// What may wait in one namespace.
    pub namespace: Caps,
    /// How often one function may be woken.
    pub function_wakes: Rate,
    /// How often the functions of one namespace may be woken, taken together.
    pub namespace_wakes: Rate,
    /// How long callers wait for a pod that the scheduler finds no node for: a node may be on its way.
    pub unschedulable_grace: Duration,
}

/// What every gate shares.
#[derive(Debug)]
pub struct Context {
    /// Wakes a revision.
    pub scaler: Arc<dyn Scaler>,
    /// Counts demand.
    pub ledger: Arc<Ledger>,
    /// What this process allows.
    pub bounds: Bounds,
    /// What waits in this process.
    pub budget: Arc<Budget>,
    /// Connects to pods.
    pub dialer: Dialer,
    /// Counts for operators.
    pub metrics: Arc<Metrics>,
    /// Probes pods.
    pub prober: Arc<Prober>,
}

impl Context {
    /// The parts, put together.
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
        Arc::new(Self { scaler, ledger, bounds, budget, dialer, metrics, prober })
    }
}

#[cfg(any(test, fuzzing))]
impl Bounds {
    /// More than a test ever needs.
    pub(crate) fn generous() -> Self {
        let caps = Caps { requests: 1 << 30, bytes: 1 << 30 };
        let rate = Rate { burst: 1 << 20, interval: Duration::ZERO };
        Self {
            process: caps,
            namespace: caps,
            function_wakes: rate,
            namespace_wakes: rate,
            unschedulable_grace: Duration::from_secs(10),
        }
    }
}
