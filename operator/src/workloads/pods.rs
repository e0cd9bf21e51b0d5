//! Pods that a rollout asks for.

use rouse_crds::function::{FunctionStatus, RolloutPhase};

/// Pods that the rollout asks for of `revision`: the scaler keeps at least as many while the rollout progresses.
pub fn requested_by_rollout(status: Option<&FunctionStatus>, revision: &str) -> u32 {
    let rollout = status.and_then(|s| s.rollout.as_ref());
    let mine = rollout.filter(|r| r.revision == revision && r.phase == RolloutPhase::Progressing);
    mine.and_then(|r| r.pods).and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}
