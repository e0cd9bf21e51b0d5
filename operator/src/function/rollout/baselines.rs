//! What a revision had been called for when it got its present share: it is judged by what came since.
//!
//! Kept in memory. An operator that takes over begins with what it knows then, so after a restart in the middle of a step the
//! step is judged by all calls that the activators have counted of the revision, or by those from now on.

use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use rouse_crds::function::{RolloutPhase, RolloutStatus};

use crate::{
    cluster::key::FunctionKey,
    workloads::outcomes::{Figures, Outcomes},
};

/// See the module. Bounded by the Functions that are being rolled out.
#[derive(Debug, Default)]
pub struct Baselines(Mutex<HashMap<FunctionKey, Baseline>>);

#[derive(Debug)]
struct Baseline {
    revision: String,
    percent: i32,
    since: Option<Time>,
    figures: Figures,
}

impl Baseline {
    fn is_of(&self, step: &RolloutStatus) -> bool {
        self.revision == step.revision && self.percent == step.percent && self.since == step.since
    }
}

impl Baselines {
    /// Calls of the revision that is rolled out, since its step began.
    pub fn figures(&self, key: &FunctionKey, step: Option<&RolloutStatus>, outcomes: &Outcomes) -> Figures {
        let Some(step) = step else { return Figures::default() };
        let all = outcomes.of(key, &step.revision);
        match self.0.lock().get(key).filter(|baseline| baseline.is_of(step)) {
            Some(baseline) => all.since(&baseline.figures),
            None => Figures::default(),
        }
    }

    /// Takes note of a step that is another than the one before.
    pub fn set(&self, key: &FunctionKey, step: Option<&RolloutStatus>, outcomes: &Outcomes) {
        let mut baselines = self.0.lock();
        match step.filter(|step| step.phase == RolloutPhase::Progressing && step.percent > 0) {
            None => {
                baselines.remove(key);
            }
            Some(step) if baselines.get(key).is_some_and(|baseline| baseline.is_of(step)) => {}
            Some(step) => {
                let RolloutStatus { revision, percent, since, .. } = step.clone();
                let figures = outcomes.of(key, &revision);
                baselines.insert(key.clone(), Baseline { revision, percent, since, figures });
            }
        }
    }

    /// Forgets a Function that is gone.
    pub fn forget(&self, key: &FunctionKey) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::demand;

    #[tokio::test]
    async fn a_step_is_judged_by_what_came_since() {
        let (baselines, outcomes) = (Baselines::default(), Outcomes::default());
        let key = FunctionKey::new("ns", "f");
        let said = |answered| demand::Outcomes { answered, failed: 0, latencies: vec![] };
        let step = |percent| RolloutStatus { revision: "f-2".into(), percent, ..RolloutStatus::default() };
        let count = |step: &RolloutStatus| baselines.figures(&key, Some(step), &outcomes).answered;
        outcomes.take("a", &key, "f-2", &said(5));
        assert_eq!(count(&step(10)), 0, "nothing is known of the step yet");
        baselines.set(&key, Some(&step(10)), &outcomes);
        outcomes.take("a", &key, "f-2", &said(12));
        baselines.set(&key, Some(&step(10)), &outcomes);
        assert_eq!(count(&step(10)), 7);
        baselines.set(&key, Some(&step(50)), &outcomes);
        outcomes.take("a", &key, "f-2", &said(13));
        assert_eq!((count(&step(50)), count(&step(10))), (1, 0));
        baselines.set(&key, None, &outcomes);
        assert!(baselines.0.lock().is_empty());
    }
}
