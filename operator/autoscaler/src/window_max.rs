//! Sliding-window maximum of a replica count.

use std::time::Duration;

use crate::inline_ends_deque::InlineEndsDeque;

/// A monotonic queue: an entry is dropped when a later count is at least as high, so the front is the maximum. Times are
/// rounded up to 1/[`PARTS`] of the window, which bounds the number of entries. A count is kept too long by at most that.
#[derive(Clone, Debug, Default)]
pub(crate) struct WindowMax {
    entries: InlineEndsDeque<(Duration, u32)>,
}

const PARTS: u32 = 64;

impl WindowMax {
    /// Records `count` at `now` and returns the maximum since `now - span`, inclusive.
    pub(crate) fn record(&mut self, now: Duration, count: u32, span: Duration) -> u32 {
        while self.entries.back().is_some_and(|(_, c)| *c <= count) {
            self.entries.pop_back();
        }
        let time = round_up(now, span / PARTS);
        if self.entries.back().is_none_or(|(last, _)| *last < time) {
            self.entries.push_back((time, count));
        }
        // Never drops the last entry, whose time is `now` or later.
        while now.saturating_sub(self.entries[0].0) > span {
            self.entries.pop_front();
        }
        self.entries[0].1
    }

    /// Returns the maximum as of the last record; 0 if nothing is recorded.
    pub(crate) fn max(&self) -> u32 {
        self.entries.front().map_or(0, |(_, count)| *count)
    }

    /// Removes all entries and frees their memory.
    pub(crate) fn clear(&mut self) {
        self.entries = InlineEndsDeque::default();
    }
}

fn round_up(time: Duration, part: Duration) -> Duration {
    let over = time.as_nanos().checked_rem(part.as_nanos()).unwrap_or(0);
    if over == 0 { time } else { time.saturating_add(part - Duration::from_nanos_u128(over)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lower_count_applies_after_the_window() {
        let mut window = WindowMax::default();
        let at = Duration::from_secs;
        let span = at(10);
        assert_eq!(window.max(), 0);
        assert_eq!(window.record(at(0), 5, span), 5);
        assert_eq!(window.record(at(5), 2, span), 5);
        assert_eq!(window.record(at(6), 3, span), 5);
        assert_eq!(window.record(at(10), 1, span), 5);
        assert_eq!(window.max(), 5);
        assert_eq!(window.record(at(11), 1, span), 3);
        assert_eq!(window.record(at(17), 1, span), 1);
        assert_eq!(window.record(at(18), 9, Duration::ZERO), 9);
        assert_eq!(window.record(at(19), 1, Duration::ZERO), 1);
        window.clear();
        assert_eq!(window.max(), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_maximum_is_never_too_low() {
        let mut window = WindowMax::default();
        for step in 0..10_000u32 {
            let count = 10_000 - step;
            let most = window.record(Duration::from_secs(u64::from(step)), count, Duration::from_secs(3600));
            let truth = count + step.min(3600);
            assert!(most >= truth && most <= truth + 57, "{most} for {truth}");
            assert!(window.entries.len() <= 66, "{}", window.entries.len());
        }
    }

    proptest! {
        #[test]
        fn returns_the_maximum_of_all_records_within_the_span(
            steps in prop::collection::vec((0u64..30, 0u32..6), 1..200), span in 0u64..300,
        ) {
            let (mut window, mut recorded, mut now) = (WindowMax::default(), Vec::new(), Duration::ZERO);
            let span = Duration::from_secs(span);
            for (seconds, count) in steps {
                now += Duration::from_secs(seconds);
                recorded.push((round_up(now, span / PARTS), count));
                let truth = recorded.iter().filter(|(at, _)| now.saturating_sub(*at) <= span).map(|(_, count)| *count).max();
                prop_assert_eq!(Some(window.record(now, count, span)), truth);
                prop_assert_eq!(Some(window.max()), truth);
            }
        }
    }
}
