//! Shows that the loops of this process still turn: what `/livez` asks.
//!
//! A process that holds the Lease and does nothing is worse than one that is gone, so liveness is about progress and not
//! about an open port.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// A loop that has not turned for so long hangs. Longer than any single step may take.
pub const STALE: Duration = Duration::from_secs(120);

/// The last turn of one loop.
#[derive(Clone, Debug, Default)]
pub struct Beat(Arc<Mutex<Option<Instant>>>);

impl Beat {
    /// The loop turns.
    pub fn now(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    fn stale(&self) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() > STALE)
    }
}

/// The loops of this process. One that has not begun (only the leader works) is not expected to turn.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Reconciles Functions.
    pub reconciler: Beat,
    /// Keeps the shared Ingress.
    pub ingress: Beat,
    /// Scales.
    pub scaler: Beat,
    /// Renews or watches the Lease.
    pub leader: Beat,
}

impl Progress {
    /// Names of the loops that hang.
    #[must_use]
    pub fn stale(&self) -> Vec<&'static str> {
        let Self { reconciler, ingress, scaler, leader } = self;
        [("reconciler", reconciler), ("ingress", ingress), ("scaler", scaler), ("leader", leader)]
            .into_iter()
            .filter(|(_, beat)| beat.stale())
            .map(|(name, _)| name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_began_has_to_turn() {
        let progress = Progress::default();
        tokio::time::advance(STALE * 2).await;
        assert!(progress.stale().is_empty(), "nothing has begun");
        progress.scaler.now();
        assert!(progress.stale().is_empty());
        tokio::time::advance(STALE + Duration::from_secs(1)).await;
        assert_eq!(progress.stale(), ["scaler"]);
        progress.scaler.now();
        assert!(progress.stale().is_empty());
    }
}
