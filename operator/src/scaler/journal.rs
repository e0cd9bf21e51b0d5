//! The last decisions that wanted another count than there was, for whoever asks why.

use k8s_openapi::jiff::Timestamp;
use rouse_autoscaler::Decision;

/// So many are kept of a revision.
const KEPT: usize = 20;

/// A decision that wanted another count.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// When it was first made.
    pub at: Timestamp,
    /// The count that there was.
    pub from: u32,
    /// What was decided.
    pub decision: Decision,
}

/// See the module. Takes no room for a revision whose count nothing has changed.
#[derive(Debug, Default)]
pub struct Journal {
    entries: Vec<Entry>,
    /// Whether the last entry is what is decided still.
    open: bool,
}

impl Journal {
    /// Notes what was decided at `at`, if it is another thing than before.
    pub fn note(&mut self, at: Timestamp, from: u32, decision: &Decision) {
        if decision.replicas == from {
            self.open = false;
            return;
        }
        let same = |last: &Entry| {
            (last.from, last.decision.replicas, last.decision.reason) == (from, decision.replicas, decision.reason)
        };
        if self.open && self.entries.last().is_some_and(same) {
            return;
        }
        self.open = true;
        if self.entries.len() == KEPT {
            self.entries.remove(0);
        } else {
            self.entries.reserve_exact(1);
        }
        self.entries.push(Entry { at, from, decision: *decision });
    }

    /// What is kept, the newest first.
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

    fn kept(journal: &Journal) -> Vec<(u32, u32, Reason)> {
        journal.entries().map(|e| (e.from, e.decision.replicas, e.decision.reason)).collect()
    }

    #[test]
    fn notes_changes_once() {
        let (mut journal, now) = (Journal::default(), Timestamp::UNIX_EPOCH);
        journal.note(now, 0, &decision(0, Reason::Idle));
        assert_eq!(journal.entries.capacity(), 0, "nothing was to be changed");
        for _ in 0..3 {
            journal.note(now, 1, &decision(0, Reason::Idle));
        }
        assert_eq!(kept(&journal), [(1, 0, Reason::Idle)]);
        journal.note(now, 1, &decision(2, Reason::Panic));
        journal.note(now, 2, &decision(2, Reason::Load));
        journal.note(now, 1, &decision(2, Reason::Panic));
        let panic = (1, 2, Reason::Panic);
        assert_eq!(kept(&journal), [panic, panic, (1, 0, Reason::Idle)], "the second time is another change");
    }

    #[test]
    fn is_bounded() {
        let mut journal = Journal::default();
        for count in 0..100 {
            journal.note(Timestamp::UNIX_EPOCH, count, &decision(count + 1, Reason::Load));
        }
        assert_eq!((journal.entries.len(), journal.entries.capacity()), (KEPT, KEPT));
        assert_eq!(kept(&journal)[0], (99, 100, Reason::Load));
    }
}
