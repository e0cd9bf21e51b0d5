//! Schedules: what they want at a wall-clock time. Pure: the time is an argument, and so is the time zone.
//!
//! A window begins whenever the clock on the wall shows a minute of its cron expression, and lasts for its duration, measured
//! in time that passes. Where a clock is changed:
//! - a minute that is skipped begins its window in the moment of the change, since to have pods a little early is what a
//!   schedule is for;
//! - a minute that is shown twice begins its window twice, so that all that the wall shows of it is covered.
//!
//! A zone that changes its offset twice within a day is taken to have changed it once.

mod cron;

pub use cron::{Cron, CronError};

use std::time::Duration;

/// How far the clocks of a place are ahead of UTC.
pub trait Zone {
    /// Seconds to be added to UTC at this Unix time to have what the wall shows. Behind UTC, they are negative.
    fn offset_at(&self, unix: i64) -> i32;
}

impl<F: Fn(i64) -> i32> Zone for F {
    fn offset_at(&self, unix: i64) -> i32 {
        self(unix)
    }
}

/// No offset at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utc;

impl Zone for Utc {
    fn offset_at(&self, _: i64) -> i32 {
        0
    }
}

/// Times in which at least so many pods are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule<Z> {
    /// When they begin.
    pub cron: Cron,
    /// Where.
    pub zone: Z,
    /// How long they last: whole seconds, at most [`LONGEST`].
    pub duration: Duration,
    /// Never fewer pods in them.
    pub min: u32,
}

/// What is longer is taken for so long: a leap year.
pub const LONGEST: Duration = Duration::from_secs(366 * DAY.unsigned_abs());

/// What schedules want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// The most of the schedules that are on; 0 while none is.
    pub min: u32,
    /// Until then, in Unix seconds, nothing changes. At most a day ahead; then it is to be asked again, and may be the same.
    pub until: i64,
}

const DAY: i64 = 86_400;

/// The year 9999: a clock that shows more is not asked what it means.
const FARTHEST: i64 = 253_402_300_800;

/// What the schedules want at a Unix time. Takes microseconds and, for long durations, some more, so the result is meant to
/// be kept until [`Active::until`].
pub fn active<Z: Zone>(schedules: &[Schedule<Z>], unix: i64) -> Active {
    let unix = unix.clamp(-FARTHEST, FARTHEST);
    let mut active = Active { min: 0, until: unix.saturating_add(DAY) };
    for schedule in schedules {
        if let Some(end) = schedule.end(unix) {
            active.min = active.min.max(schedule.min);
            active.until = active.until.min(end);
        }
        if let Some(next) = schedule.next(unix, active.until) {
            active.until = next;
        }
    }
    active
}

impl<Z: Zone> Schedule<Z> {
    /// When the window ends that is on, if one is and no other begins before.
    fn end(&self, unix: i64) -> Option<i64> {
        let seconds = i64::try_from(self.duration.min(LONGEST).as_secs()).unwrap_or(0);
        let begun = self.last(unix, unix.saturating_sub(seconds).saturating_add(1))?;
        Some(begun.saturating_add(seconds))
    }

    /// The latest beginning until `unix`, and not before `oldest`.
    fn last(&self, unix: i64, oldest: i64) -> Option<i64> {
        let mut end = unix;
        // Back from one change of the clock to the one before.
        while end >= oldest {
            let offset = self.offset(end);
            let begin = self.begin_of_offset(end, oldest);
            if let Some(local) = self.cron.at_or_before(end + offset, begin + offset) {
                return Some(local - offset);
            }
            if begin == oldest {
                // Whether the clock was changed just then is the last question.
                let before = self.offset(begin - 1);
                return self.skipped(before, offset, begin).then_some(begin);
            }
            if self.skipped(self.offset(begin - 1), offset, begin) {
                return Some(begin);
            }
            end = begin - 1;
        }
        None
    }

    /// The earliest beginning after `unix` and before `latest`, which is at most a day ahead.
    fn next(&self, unix: i64, latest: i64) -> Option<i64> {
        let (first, last) = (unix.saturating_add(1), latest.saturating_sub(1));
        // From before the first second, so that a change in it is seen.
        let (before, after) = (self.offset(unix), self.offset(last));
        let change = if before == after { last.saturating_add(1) } else { self.change(unix, last) };
        if let Some(local) = self.cron.at_or_after(first + before, change - 1 + before) {
            return Some(local - before);
        }
        if before == after {
            return None;
        }
        if self.skipped(before, after, change) {
            return Some(change);
        }
        self.cron.at_or_after(change + after, last + after).map(|local| local - after)
    }

    fn offset(&self, unix: i64) -> i64 {
        i64::from(self.zone.offset_at(unix))
    }

    /// The first second of the offset that is in force at `unix`, or `oldest`.
    fn begin_of_offset(&self, unix: i64, oldest: i64) -> i64 {
        let offset = self.offset(unix);
        let mut known = unix;
        while known > oldest {
            let earlier = known.saturating_sub(DAY).max(oldest);
            if self.offset(earlier) != offset {
                return self.change(earlier, known);
            }
            known = earlier;
        }
        oldest
    }

    /// The first second that has not the offset of `from` any more; `to` has not.
    fn change(&self, from: i64, to: i64) -> i64 {
        let offset = self.offset(from);
        let (mut same, mut other) = (from, to);
        while other - same > 1 {
            let middle = same + (other - same) / 2;
            if self.offset(middle) == offset {
                same = middle;
            } else {
                other = middle;
            }
        }
        other
    }

    /// Whether a change of the clock at `change` skips a minute that would have begun a window, or shows such a one first: either
    /// begins a window then. There is none if the clock is put back.
    fn skipped(&self, before: i64, after: i64, change: i64) -> bool {
        self.cron.at_or_before(change + after, change + before).is_some()
    }
}

#[cfg(test)]
mod tests;
