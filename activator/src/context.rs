//! What every gate shares: the way to the API server, the ledger, the caps, the metrics.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{admit::Budget, demand::Ledger, endpoints::Dialer, metrics::Metrics, wake::Scaler};

/// Probes in flight over all pods. Beyond it they take turns, so that a thousand starting pods do not become a storm.
const PROBES_AT_ONCE: usize = 256;

/// What every gate shares.
#[derive(Debug)]
pub struct Context {
    /// Wakes a revision.
    pub scaler: Arc<dyn Scaler>,
    /// Counts demand.
    pub ledger: Arc<Ledger>,
    /// Cap on the bytes of waiting requests in this process.
    pub budget: Arc<Budget>,
    /// Connects to pods.
    pub dialer: Dialer,
    /// Counts for operators.
    pub metrics: Arc<Metrics>,
    /// A turn to probe.
    pub probes: Semaphore,
}

impl Context {
    /// The parts, put together.
    #[must_use]
    pub fn new(
        scaler: Arc<dyn Scaler>,
        budget: Budget,
        dialer: Dialer,
        metrics: Arc<Metrics>,
        ledger: Arc<Ledger>,
    ) -> Arc<Self> {
        Arc::new(Self {
            scaler,
            ledger,
            budget: Arc::new(budget),
            dialer,
            metrics,
            probes: Semaphore::new(PROBES_AT_ONCE),
        })
    }
}
