//! The one task of a function that has waiting requests: it wakes what sleeps and lets a crowd in step by step.
//!
//! It is started by the first request that waits and ends when none does, so an idle function costs nothing and there is
//! never more than one patch in flight for a function.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::{
    state::Gate,
    step::{RAMP_INTERVAL, Step},
};
use crate::{supervise, wake::WakeError};

/// Starts the keeper of a gate.
///
/// The gate starts no second one as long as this one has not said that nobody waits, so a defect must not end it.
pub(crate) fn spawn(gate: Arc<Gate>) {
    let metrics = gate.context().metrics.clone();
    supervise::spawn("keeper", metrics, move || keep(gate.clone()));
}

async fn keep(gate: Arc<Gate>) {
    let mut ramped = Instant::now();
    while let Some(until) = turn(&gate).await {
        tokio::select! {
            () = gate.kicked() => {}
            () = sleep_until(until) => {}
        }
        if ramped.elapsed() >= RAMP_INTERVAL {
            gate.ramp();
            ramped = Instant::now();
        }
    }
}

/// Does what is due; tells until when there is nothing more to do, or that there is nobody left.
async fn turn(gate: &Arc<Gate>) -> Option<Instant> {
    loop {
        match gate.step() {
            Step::Done => return None,
            Step::Wait(until) => return Some(until),
            Step::Wake { revision, replicas } => {
                let scaler = gate.context().scaler.clone();
                let mut waking = scaler.wake(&gate.id().namespace, &revision, replicas);
                let result = loop {
                    tokio::select! {
                        result = &mut waking => break result,
                        // Pods of another revision may take their share meanwhile.
                        () = tokio::time::sleep(RAMP_INTERVAL) => gate.ramp(),
                    }
                };
                gate.context().metrics.woken(result.as_ref().map_or_else(WakeError::word, |()| "woken"));
                gate.woken(&revision, result);
            }
        }
    }
}
