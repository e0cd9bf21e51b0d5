//! Request statistics of a revision at the start of its current rollout step. Analysis uses the requests since then.
//!
//! Kept in memory. After a restart during a step, the new operator analyzes the step by all requests that the
//! activators have counted for the revision, or by those since the restart.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use rouse_crds::function::{RolloutPhase, RolloutStatus};

use crate::{
    cluster::key::FunctionKey,
    workloads::outcomes::{Outcomes, RequestStats},
};

/// Baselines by Function. Bounded by the Functions with a rollout in progress.
#[derive(Debug, Default)]
pub struct Baselines(Mutex<HashMap<FunctionKey, Baseline>>);

#[derive(Debug)]
struct Baseline {
    revision: String,
    percent: i32,
    since: Option<Time>,
    stats: RequestStats,
}

impl Baseline {
    fn is_of(&self, step: &RolloutStatus) -> bool {
        self.revision == step.revision && self.percent == step.percent && self.since == step.since
    }
}

impl Baselines {
    /// Returns the statistics of the new revision since the start of its step.
    pub fn stats_of_step(&self, key: &FunctionKey, step: Option<&RolloutStatus>, outcomes: &Outcomes) -> RequestStats {
        let Some(step) = step else { return RequestStats::default() };
        let all = outcomes.of(key, &step.revision);
        match self.0.lock().get(key).filter(|baseline| baseline.is_of(step)) {
            Some(baseline) => all.since(&baseline.stats),
            None => RequestStats::default(),
        }
    }

    /// Records the baseline when a new step starts.
    pub fn set(&self, key: &FunctionKey, step: Option<&RolloutStatus>, outcomes: &Outcomes) {
        let mut baselines = self.0.lock();
        match step.filter(|step| step.phase == RolloutPhase::Progressing && step.percent > 0) {
            None => {
                baselines.remove(key);
            }
            Some(step) if baselines.get(key).is_some_and(|baseline| baseline.is_of(step)) => {}
            Some(step) => {
                let RolloutStatus { revision, percent, since, .. } = step.clone();
                let stats = outcomes.of(key, &revision);
                baselines.insert(key.clone(), Baseline { revision, percent, since, stats });
            }
        }
    }

    /// Forgets a deleted Function.
    pub fn forget(&self, key: &FunctionKey) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::demand;

    #[tokio::test]
    async fn a_step_counts_the_requests_since_its_start() {
        let (baselines, outcomes) = (Baselines::default(), Outcomes::default());
        let key = FunctionKey::new("ns", "f");
        let report = |answered| demand::Outcomes { answered, failed: 0, latencies: vec![] };
        let step = |percent| RolloutStatus { revision: "f-2".into(), percent, ..RolloutStatus::default() };
        let count = |step: &RolloutStatus| baselines.stats_of_step(&key, Some(step), &outcomes).completed;
        outcomes.take("a", &key, "f-2", &report(5));
        assert_eq!(count(&step(10)), 0, "the step has no baseline yet");
        baselines.set(&key, Some(&step(10)), &outcomes);
        outcomes.take("a", &key, "f-2", &report(12));
        baselines.set(&key, Some(&step(10)), &outcomes);
        assert_eq!(count(&step(10)), 7);
        baselines.set(&key, Some(&step(50)), &outcomes);
        outcomes.take("a", &key, "f-2", &report(13));
        assert_eq!((count(&step(50)), count(&step(10))), (1, 0));
        baselines.set(&key, None, &outcomes);
        assert!(baselines.0.lock().is_empty());
    }
}
