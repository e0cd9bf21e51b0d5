//! Liveness of the process: whether its loops make progress. Served by `/livez`.
//!
//! A process that holds the Lease and does nothing is worse than a stopped one, so an open port is not enough.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Time without progress after which a loop counts as stuck. Longer than any single iteration may take.
pub const STALE: Duration = Duration::from_secs(120);

/// Time of the last iteration of a loop.
#[derive(Clone, Debug, Default)]
pub struct Beat(Arc<Mutex<Option<Instant>>>);

impl Beat {
    /// Records an iteration.
    pub fn now(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    fn stale(&self) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() > STALE)
    }
}

/// Loops of this process. A loop that has not started, for example on a replica that is not the leader, does not count.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Reconciler of Functions.
    pub reconciler: Beat,
    /// Reconciler of the shared Ingresses.
    pub ingress: Beat,
    /// Scaler.
    pub scaler: Beat,
    /// Leader election.
    pub leader: Beat,
}

impl Progress {
    /// Returns the names of stuck loops.
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
    async fn a_started_loop_must_make_progress() {
        let progress = Progress::default();
        tokio::time::advance(STALE * 2).await;
        assert!(progress.stale().is_empty(), "no loop has started");
        progress.scaler.now();
        assert!(progress.stale().is_empty());
        tokio::time::advance(STALE + Duration::from_secs(1)).await;
        assert_eq!(progress.stale(), ["scaler"]);
        progress.scaler.now();
        assert!(progress.stale().is_empty());
    }
}
