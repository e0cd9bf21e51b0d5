//! What is remembered of a revision between two decisions.

use std::{collections::VecDeque, time::Duration};

use crate::history::History;

/// What is remembered of a revision between two decisions. Kept by the caller, one for each revision; a fresh one means
/// that nothing is known yet, as after a restart.
#[derive(Clone, Debug)]
pub struct State {
    /// When this memory began.
    pub(crate) since: Duration,
    /// When a request was last there, waiting, in a pod, or come and gone since the decision before. At the beginning it
    /// is not known, so the beginning counts.
    pub(crate) last_active: Duration,
    /// Arrivals at the decision before; none before the first.
    pub(crate) arrivals: Option<u64>,
    pub(crate) history: History,
    /// While a sudden rise is on.
    pub(crate) panic: Option<Panic>,
    /// What was wanted within the last `scale_down_delay`: moments with falling counts, so that the front is the most.
    pub(crate) wanted: VecDeque<(Duration, u32)>,
}

/// A sudden rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panic {
    /// When demand was last above the threshold.
    pub(crate) last_over: Duration,
    /// The most that was wanted in it.
    pub(crate) most: u32,
}

impl State {
    /// Nothing known, beginning `now`.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            since: now,
            last_active: now,
            arrivals: None,
            history: History::default(),
            panic: None,
            wanted: VecDeque::new(),
        }
    }

    /// When a request was last there.
    #[must_use]
    pub fn last_active(&self) -> Duration {
        self.last_active
    }

    /// The most that was wanted within the last `delay`, `count` now among it.
    ///
    /// Counts that a later, higher one covers are dropped, so the queue holds falling counts only and is bounded by
    /// `max`, or by the decisions in `delay` where those are fewer.
    pub(crate) fn most_wanted(&mut self, now: Duration, count: u32, delay: Duration) -> u32 {
        while self.wanted.back().is_some_and(|(_, c)| *c <= count) {
            self.wanted.pop_back();
        }
        self.wanted.push_back((now, count));
        while self.wanted.len() > 1 && now.saturating_sub(self.wanted[0].0) > delay {
            self.wanted.pop_front();
        }
        self.wanted[0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_count_has_to_last() {
        let mut state = State::new(Duration::ZERO);
        let at = Duration::from_secs;
        let delay = at(10);
        assert_eq!(state.most_wanted(at(0), 5, delay), 5);
        assert_eq!(state.most_wanted(at(5), 2, delay), 5);
        assert_eq!(state.most_wanted(at(6), 3, delay), 5);
        assert_eq!(state.most_wanted(at(10), 1, delay), 5);
        assert_eq!(state.most_wanted(at(11), 1, delay), 3);
        assert_eq!(state.most_wanted(at(17), 1, delay), 1);
        assert_eq!(state.most_wanted(at(18), 9, Duration::ZERO), 9);
        assert_eq!(state.most_wanted(at(19), 1, Duration::ZERO), 1);
    }
}
