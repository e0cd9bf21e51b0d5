//! What every gate shares: the way to the API server, the ledger, the caps, the metrics.

use std::sync::Arc;

use crate::{
    admit::Budget,
    demand::Ledger,
    endpoints::{Dialer, Probing},
    metrics::Metrics,
    wake::Scaler,
};

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
    /// What probes of pods share.
    pub probing: Probing,
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
        Arc::new(Self { scaler, ledger, budget: Arc::new(budget), dialer, metrics, probing: Probing::default() })
    }
}
