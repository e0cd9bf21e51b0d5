//! The most that was wanted within the last so many seconds.

use std::time::Duration;

use crate::ends::Ends;

/// Moments with falling counts: what a later, higher count covers is dropped, so the front is the most. Moments are rounded
/// up to a [`PARTS`]th of the time, so there are no more of them, and a count is kept by so much too long at the most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peaks {
    falling: Ends<(Duration, u32)>,
}

const PARTS: u32 = 64;

impl Peaks {
    /// Notes `count` as of `now` and yields the most since `span` ago, both ends included.
    pub(crate) fn note(&mut self, now: Duration, count: u32, span: Duration) -> u32 {
        while self.falling.back().is_some_and(|(_, c)| *c <= count) {
            self.falling.pop_back();
        }
        let moment = rounded(now, span / PARTS);
        if self.falling.back().is_none_or(|(last, _)| *last < moment) {
            self.falling.push_back((moment, count));
        }
        // Never the last one: it is of now.
        while now.saturating_sub(self.falling[0].0) > span {
            self.falling.pop_front();
        }
        self.falling[0].1
    }

    /// The most that is held now.
    pub(crate) fn most(&self) -> u32 {
        self.falling.front().map_or(0, |(_, count)| *count)
    }

    /// Forgets everything, and the room that it took.
    pub(crate) fn forget(&mut self) {
        self.falling = Ends::default();
    }
}

fn rounded(moment: Duration, part: Duration) -> Duration {
    let over = moment.as_nanos().checked_rem(part.as_nanos()).unwrap_or(0);
    if over == 0 { moment } else { moment.saturating_add(part - Duration::from_nanos_u128(over)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lower_count_has_to_last() {
        let mut peaks = Peaks::default();
        let at = Duration::from_secs;
        let span = at(10);
        assert_eq!(peaks.most(), 0);
        assert_eq!(peaks.note(at(0), 5, span), 5);
        assert_eq!(peaks.note(at(5), 2, span), 5);
        assert_eq!(peaks.note(at(6), 3, span), 5);
        assert_eq!(peaks.note(at(10), 1, span), 5);
        assert_eq!(peaks.most(), 5);
        assert_eq!(peaks.note(at(11), 1, span), 3);
        assert_eq!(peaks.note(at(17), 1, span), 1);
        assert_eq!(peaks.note(at(18), 9, Duration::ZERO), 9);
        assert_eq!(peaks.note(at(19), 1, Duration::ZERO), 1);
        peaks.forget();
        assert_eq!(peaks.most(), 0);
    }

    #[test]
    fn it_is_bounded_and_never_says_too_little() {
        let mut peaks = Peaks::default();
        for step in 0..10_000u32 {
            let count = 10_000 - step;
            let most = peaks.note(Duration::from_secs(u64::from(step)), count, Duration::from_secs(3600));
            let truth = count + step.min(3600);
            assert!(most >= truth && most <= truth + 57, "{most} for {truth}");
            assert!(peaks.falling.len() <= 66, "{}", peaks.falling.len());
        }
    }

    proptest! {
        #[test]
        fn it_is_the_most_of_all_that_was_noted_within_the_span(
            steps in prop::collection::vec((0u64..30, 0u32..6), 1..200), span in 0u64..300,
        ) {
            let (mut peaks, mut noted, mut now) = (Peaks::default(), Vec::new(), Duration::ZERO);
            let span = Duration::from_secs(span);
            for (seconds, count) in steps {
                now += Duration::from_secs(seconds);
                noted.push((rounded(now, span / PARTS), count));
                let truth = noted.iter().filter(|(at, _)| now.saturating_sub(*at) <= span).map(|(_, count)| *count).max();
                prop_assert_eq!(Some(peaks.note(now, count, span)), truth);
                prop_assert_eq!(Some(peaks.most()), truth);
            }
        }
    }
}
