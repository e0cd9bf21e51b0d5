//! Wake task: one per function while requests are queued. Wakes revisions and raises the ramp limits.
//!
//! The first queued request starts it, and it ends when the queue is empty. An idle function costs nothing, and at most
//! one patch per function is in flight.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::{
    state::Breaker,
    step::{RAMP_INTERVAL, Step},
};
use crate::{supervise, wake::WakeError};

/// Starts the wake task of a breaker.
///
/// The breaker starts no second one until this one has found the queue empty, so it must survive a panic.
pub(crate) fn spawn(breaker: Arc<Breaker>) {
    let metrics = breaker.context().metrics.clone();
    supervise::spawn("wake", metrics, move || run(breaker.clone()));
}

async fn run(breaker: Arc<Breaker>) {
    let mut ramped = Instant::now();
    while let Some(until) = run_due_steps(&breaker).await {
        tokio::select! {
            () = breaker.notified() => {}
            () = sleep_until(until) => {}
        }
        if ramped.elapsed() >= RAMP_INTERVAL {
            breaker.ramp();
            ramped = Instant::now();
        }
    }
}

/// Runs all steps that are due. Returns the time of the next one, or `None` if the queue is empty.
async fn run_due_steps(breaker: &Arc<Breaker>) -> Option<Instant> {
    loop {
        match breaker.step() {
            Step::Done => return None,
            Step::Wait(until) => return Some(until),
            Step::Wake { revision, replicas } => {
                let scaler = breaker.context().scaler.clone();
                let mut waking = scaler.wake(&breaker.id().key.namespace, &revision, replicas);
                let result = loop {
                    tokio::select! {
                        result = &mut waking => break result,
                        // Pods of another revision may raise their ramp meanwhile.
                        () = tokio::time::sleep(RAMP_INTERVAL) => breaker.ramp(),
                    }
                };
                breaker.context().metrics.record_wake(result.as_ref().map_or_else(WakeError::label, |()| "woken"));
                breaker.woken(&revision, result);
            }
        }
    }
}
