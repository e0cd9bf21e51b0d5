//! Decision history: the last decisions that changed the replica count of a revision, for `/debug/functions`.

use k8s_openapi::jiff::Timestamp;
use rouse_autoscaler::Decision;

/// Decisions that are kept per revision.
const CAPACITY: usize = 20;

/// A decision for another replica count than the current one.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Time of the first decision, if it was repeated.
    pub at: Timestamp,
    /// Replica count at that time.
    pub from: u32,
    /// The decision.
    pub decision: Decision,
}

/// The last [`CAPACITY`] decisions. Does not allocate for a revision whose replica count never changed.
#[derive(Debug, Default)]
pub struct DecisionHistory {
    entries: Vec<Entry>,
    /// Whether the last entry is still the current decision.
    current: bool,
}

impl DecisionHistory {
    /// Records a decision at `at`, unless it repeats the current one or leaves the replica count `from` as it is.
    pub fn record(&mut self, at: Timestamp, from: u32, decision: &Decision) {
        if decision.replicas == from {
            self.current = false;
            return;
        }
        let same = |last: &Entry| {
            (last.from, last.decision.replicas, last.decision.reason) == (from, decision.replicas, decision.reason)
        };
        if self.current && self.entries.last().is_some_and(same) {
            return;
        }
        self.current = true;
        if self.entries.len() == CAPACITY {
            self.entries.remove(0);
        } else {
            self.entries.reserve_exact(1);
        }
        self.entries.push(Entry { at, from, decision: *decision });
    }

    /// Returns the entries, newest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_autoscaler::{Reason, Seen};

    fn decision(replicas: u32, reason: Reason) -> Decision {
        Decision { replicas, reason, wake_at: None, seen: Seen::default() }
    }

    fn entries(history: &DecisionHistory) -> Vec<(u32, u32, Reason)> {
        history.entries().map(|e| (e.from, e.decision.replicas, e.decision.reason)).collect()
    }

    #[test]
    fn records_each_change_once() {
        let (mut history, now) = (DecisionHistory::default(), Timestamp::UNIX_EPOCH);
        history.record(now, 0, &decision(0, Reason::Idle));
        assert_eq!(history.entries.capacity(), 0, "no change");
        for _ in 0..3 {
            history.record(now, 1, &decision(0, Reason::Idle));
        }
        assert_eq!(entries(&history), [(1, 0, Reason::Idle)]);
        history.record(now, 1, &decision(2, Reason::Panic));
        history.record(now, 2, &decision(2, Reason::Load));
        history.record(now, 1, &decision(2, Reason::Panic));
        let panic = (1, 2, Reason::Panic);
        assert_eq!(entries(&history), [panic, panic, (1, 0, Reason::Idle)], "the second time is another change");
    }

    #[test]
    fn is_bounded() {
        let mut history = DecisionHistory::default();
        for count in 0..100 {
            history.record(Timestamp::UNIX_EPOCH, count, &decision(count + 1, Reason::Load));
        }
        assert_eq!((history.entries.len(), history.entries.capacity()), (CAPACITY, CAPACITY));
        assert_eq!(entries(&history)[0], (99, 100, Reason::Load));
    }
}
