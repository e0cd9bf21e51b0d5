//! The highest count within a time span.

use std::{collections::VecDeque, time::Duration};

/// Moments with falling counts. Moments are rounded up to a [`PARTS`]th of the span, which bounds their number.
#[derive(Clone, Debug, Default)]
pub(super) struct Peaks {
    falling: VecDeque<(Duration, u32)>,
}

const PARTS: u32 = 64;

impl Peaks {
    /// Records `count` as of `now` and returns the highest count since `span` ago, both ends included.
    pub(super) fn note(&mut self, now: Duration, count: u32, span: Duration) -> u32 {
        while self.falling.back().is_some_and(|(_, c)| *c <= count) {
            self.falling.pop_back();
        }
        let moment = rounded(now, span / PARTS);
        if self.falling.back().is_none_or(|(last, _)| *last < moment) {
            self.falling.push_back((moment, count));
        }
        // Never the last entry: its moment is not before `now`.
        while now.saturating_sub(self.falling[0].0) > span {
            self.falling.pop_front();
        }
        self.falling[0].1
    }

    /// Returns the highest count that is held now.
    pub(super) fn most(&self) -> u32 {
        self.falling.front().map_or(0, |(_, count)| *count)
    }

    pub(super) fn forget(&mut self) {
        self.falling.clear();
    }
}

fn rounded(moment: Duration, part: Duration) -> Duration {
    let over = moment.as_nanos().checked_rem(part.as_nanos()).unwrap_or(0);
    if over == 0 { moment } else { moment.saturating_add(part - Duration::from_nanos_u128(over)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_count_applies_after_the_span() {
        let mut peaks = Peaks::default();
        let at = Duration::from_secs;
        let noted = [(0, 5), (5, 2), (6, 3), (10, 1), (11, 1), (17, 1)].map(|(s, c)| peaks.note(at(s), c, at(10)));
        assert_eq!(noted, [5, 5, 5, 5, 3, 1]);
        peaks.forget();
        assert_eq!(peaks.most(), 0);
    }
}
