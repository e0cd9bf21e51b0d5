//! Functions that need more pods than `scaling.max`, for the condition `Scaled`.
//!
//! The scaler records its decisions, and the reconciler reads the result. A load near the limit changes the decision every
//! second, so a change counts only after it has lasted: each is a write of the status.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::cluster::key::FunctionKey;

/// Time for which `max` has to limit the count before it is reported.
const REPORTED_AFTER: Duration = Duration::from_secs(10);

/// Time without a limited decision after which the report ends.
const ENDS_AFTER: Duration = Duration::from_secs(60);

/// Functions that `scaling.max` limits at present. Bounded by the Functions that exist.
#[derive(Debug, Default)]
pub struct MaxReached(Mutex<HashMap<FunctionKey, Limited>>);

#[derive(Clone, Copy, Debug)]
struct Limited {
    /// First and last of the decisions that `max` limited.
    since: Instant,
    last: Instant,
    reported: bool,
}

impl MaxReached {
    /// Records whether `max` limits a revision of the Function at `now`. Returns whether [`MaxReached::is_reported`] changed.
    pub fn record(&self, function: &FunctionKey, limited: bool, now: Instant) -> bool {
        let mut all = self.0.lock();
        let Some(state) = all.get_mut(function) else {
            if limited {
                all.insert(function.clone(), Limited { since: now, last: now, reported: false });
            }
            return false;
        };
        if limited {
            state.last = now;
            let report = !state.reported && now.duration_since(state.since) >= REPORTED_AFTER;
            state.reported |= report;
            return report;
        }
        let quiet = now.duration_since(state.last) >= ENDS_AFTER;
        if !state.reported || quiet {
            return all.remove(function).is_some_and(|state| state.reported);
        }
        false
    }

    /// Returns when to record again, because a report is about to end.
    #[must_use]
    pub fn ends_at(&self, function: &FunctionKey) -> Option<Instant> {
        self.0.lock().get(function).filter(|state| state.reported).map(|state| state.last + ENDS_AFTER)
    }

    /// Whether the Function has needed more pods than `scaling.max` for some time.
    #[must_use]
    pub fn is_reported(&self, function: &FunctionKey) -> bool {
        self.0.lock().get(function).is_some_and(|state| state.reported)
    }

    /// Forgets a Function that was deleted.
    pub fn forget(&self, function: &FunctionKey) {
        self.0.lock().remove(function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reported_after_it_has_lasted_and_until_it_has_ended() {
        let (limits, key, start) = (MaxReached::default(), FunctionKey::new("a", "f"), Instant::now());
        let mut changes = vec![];
        // Limited from 0 to 5, from 20 to 100 with gaps, then not.
        for second in 0..200 {
            let limited = second < 5 || ((20..100).contains(&second) && second % 7 != 0);
            // A gap before the report restarts it; one after the report does not end it.
            if limits.record(&key, limited, start + Duration::from_secs(second)) {
                changes.push((second, limits.is_reported(&key)));
            }
        }
        assert_eq!(changes.len(), 0, "gaps of a second before the report: {changes:?}");
        for second in 200..400 {
            let limited = (200..230).contains(&second) || second == 250;
            if limits.record(&key, limited, start + Duration::from_secs(second)) {
                changes.push((second, limits.is_reported(&key)));
            }
        }
        assert_eq!(changes, [(210, true), (310, false)]);
    }
}
