//! Schedules: the minimum number of pods at a wall-clock time. Pure: the time and the time zone are arguments.
//!
//! A window starts when local time reaches a minute of the cron expression, and lasts for its duration in elapsed time.
//! When the offset of the zone changes:
//! - A skipped minute starts its window at the change, since a schedule should have its pods early rather than late.
//! - A repeated minute starts its window twice, so that both occurrences are covered.
//!
//! Two changes of the offset within a day are treated as one.

mod cron;

pub use cron::{Cron, CronError};

use std::time::Duration;

/// A time zone.
pub trait Zone {
    /// Returns local time minus UTC in seconds, at a Unix time.
    fn offset_at(&self, unix: i64) -> i32;
}

impl<F: Fn(i64) -> i32> Zone for F {
    fn offset_at(&self, unix: i64) -> i32 {
        self(unix)
    }
}

/// The zone without an offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utc;

impl Zone for Utc {
    fn offset_at(&self, _: i64) -> i32 {
        0
    }
}

/// A recurring window with a minimum number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule<Z> {
    /// Start of the window.
    pub cron: Cron,
    /// Time zone of `cron`.
    pub zone: Z,
    /// Duration of the window: whole seconds, at most [`LONGEST`].
    pub duration: Duration,
    /// Minimum number of pods in the window.
    pub min: u32,
}

/// Maximum duration, to which longer ones are truncated: a leap year.
pub const LONGEST: Duration = Duration::from_secs(366 * DAY.unsigned_abs());

/// The result of all schedules at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Active {
    /// Maximum of the active schedules; 0 if none is active.
    pub min: u32,
    /// Unix time until which `min` is valid. At most a day ahead, after which `min` may be the same.
    pub until: i64,
}

const DAY: i64 = 86_400;

/// The year 9999. Later times are clamped.
const FARTHEST: i64 = 253_402_300_800;

/// Evaluates schedules at a Unix time. Takes microseconds, and more for long durations, so the result should be cached until
/// [`Active::until`].
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
    /// Returns the end of the active window.
    fn end(&self, unix: i64) -> Option<i64> {
        let seconds = i64::try_from(self.duration.min(LONGEST).as_secs()).unwrap_or(0);
        let begun = self.last(unix, unix.saturating_sub(seconds).saturating_add(1))?;
        Some(begun.saturating_add(seconds))
    }

    /// Returns the latest start of a window in `[oldest, unix]`.
    fn last(&self, unix: i64, oldest: i64) -> Option<i64> {
        let mut end = unix;
        // Backwards from one offset change to the previous one.
        while end >= oldest {
            let offset = self.offset(end);
            let begin = self.begin_of_offset(end, oldest);
            if let Some(local) = self.cron.at_or_before(end + offset, begin + offset) {
                return Some(local - offset);
            }
            if begin == oldest {
                // The offset may have changed at `oldest` itself.
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

    /// Returns the earliest start of a window in `(unix, latest)`; `latest` is at most a day ahead.
    fn next(&self, unix: i64, latest: i64) -> Option<i64> {
        let (first, last) = (unix.saturating_add(1), latest.saturating_sub(1));
        // Starts before the first second, so that a change in that second is found.
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

    /// Returns the first second of the offset that applies at `unix`, but not before `oldest`.
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

    /// Returns the first second whose offset differs from that of `from`. The offset of `to` must differ.
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

    /// Returns whether a window starts at an offset change, because a minute of the expression is skipped or is the first one
    /// after the change. Always false if the clock is set back.
    fn skipped(&self, before: i64, after: i64, change: i64) -> bool {
        self.cron.at_or_before(change + after, change + before).is_some()
    }
}

#[cfg(test)]
mod tests;
