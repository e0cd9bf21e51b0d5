//! Pods on their way: how many were asked for and are not ready, since when, and how long a pod takes to start.
//!
//! All that is known of pods is how many there are to be and how many are ready, so pods that become ready are taken to be
//! those that were asked for first.

use std::time::Duration;

use crate::Observed;

/// Groups of pods that were asked for at different times. What is asked for while so many are under way counts as asked for
/// with the newest.
const GROUPS: usize = 8;

/// A start that takes less than the estimate lowers it by this part of the difference; one that takes more is taken at once.
const EASE: u32 = 4;

/// Until a pod has become ready, it is late after the time in which Functions are given up by default.
const LATE_UNKNOWN: Duration = Duration::from_secs(60);

/// A pod is late after so many times the start time, and never before [`LATE_LEAST`].
const LATE: u32 = 4;
const LATE_LEAST: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Starts {
    seen: Option<Observed>,
    /// When how many pods were asked for that are not ready, oldest first. At most [`GROUPS`].
    coming: Vec<(Duration, u32)>,
    /// How long a pod takes to start.
    time: Option<Duration>,
}

impl Starts {
    /// Takes in the pods that there are at `now`.
    pub(crate) fn note(&mut self, now: Duration, observed: &Observed) {
        let before = self.seen.replace(*observed).unwrap_or(Observed { desired: 0, ready: 0 });
        if before == *observed {
            return;
        }
        let started = observed.ready.saturating_sub(before.ready);
        self.arrive(now, started);
        // What is not ready now is on its way, whatever was counted: pods are taken away, fail, or are ready unasked.
        let (coming, counted) = (observed.desired.saturating_sub(observed.ready), self.count());
        if coming > counted {
            self.ask(now, coming - counted);
        } else {
            self.forget_newest(counted - coming);
        }
    }

    fn arrive(&mut self, now: Duration, mut started: u32) {
        while started > 0 {
            let Some((asked, count)) = self.coming.first_mut() else { return };
            let (took, some) = (now.saturating_sub(*asked), started.min(*count));
            self.time = Some(match self.time {
                Some(time) if took < time => time - (time - took) / EASE,
                _ => took,
            });
            started -= some;
            *count -= some;
            if *count == 0 {
                self.coming.remove(0);
            }
        }
    }

    fn ask(&mut self, now: Duration, count: u32) {
        let full = self.coming.len() == GROUPS;
        match self.coming.last_mut() {
            Some((asked, newest)) if *asked == now || full => *newest += count,
            _ => self.coming.push((now, count)),
        }
    }

    fn forget_newest(&mut self, mut many: u32) {
        while many > 0
            && let Some((_, count)) = self.coming.last_mut()
        {
            let some = many.min(*count);
            many -= some;
            *count -= some;
            if *count == 0 {
                self.coming.pop();
            }
        }
    }

    fn count(&self) -> u32 {
        self.coming.iter().map(|(_, count)| *count).sum()
    }

    /// How long a pod takes to start, if one has.
    pub(crate) fn time(&self) -> Option<Duration> {
        self.time
    }

    /// The same, or, before one has become ready, for how long the first has been on its way: a pod may serve before it is
    /// called ready. `None` if none is.
    pub(crate) fn at_least(&self, now: Duration) -> Option<Duration> {
        self.time.or_else(|| self.coming.first().map(|(asked, _)| now.saturating_sub(*asked)))
    }

    /// Takes this for the start time, unless one is known.
    pub(crate) fn assume(&mut self, time: Duration) {
        self.time.get_or_insert(time);
    }

    /// Whether a pod is on its way.
    pub(crate) fn any(&self) -> bool {
        !self.coming.is_empty()
    }

    /// Whether the pod that was asked for first should be ready by now.
    pub(crate) fn late(&self, now: Duration) -> bool {
        self.coming.first().is_some_and(|(asked, _)| now.saturating_sub(*asked) > self.bound())
    }

    /// Whether the pods that were asked for last should be, too.
    pub(crate) fn all_late(&self, now: Duration) -> bool {
        self.coming.last().is_some_and(|(asked, _)| now.saturating_sub(*asked) > self.bound())
    }

    fn bound(&self) -> Duration {
        self.time.map_or(LATE_UNKNOWN, |time| time.saturating_mul(LATE).max(LATE_LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn noted(all: &[(u64, u32, u32)]) -> Starts {
        let mut starts = Starts::default();
        for (second, desired, ready) in all {
            starts.note(at(*second), &Observed { desired: *desired, ready: *ready });
        }
        starts
    }

    #[test]
    fn a_start_is_from_the_count_to_the_pod() {
        let starts = noted(&[(0, 0, 0), (10, 1, 0), (13, 1, 1)]);
        assert_eq!((starts.time(), starts.any()), (Some(at(3)), false));
        assert_eq!(noted(&[(0, 0, 0), (10, 1, 0)]).time(), None);
    }

    #[test]
    fn the_first_that_was_asked_for_is_the_first_that_is_ready() {
        let starts = noted(&[(0, 1, 0), (8, 3, 0), (10, 3, 1)]);
        assert_eq!((starts.time(), starts.count()), (Some(at(10)), 2));
        let starts = noted(&[(0, 1, 0), (8, 3, 0), (10, 3, 1), (12, 3, 3)]);
        assert_eq!(starts.time(), Some(at(10) - at(6) / EASE));
    }

    #[test]
    fn longer_is_taken_at_once_and_shorter_by_and_by() {
        let starts = noted(&[(0, 1, 0), (4, 1, 1), (10, 2, 1), (30, 2, 2)]);
        assert_eq!(starts.time(), Some(at(20)));
        let starts = noted(&[(0, 1, 0), (20, 1, 1), (30, 2, 1), (34, 2, 2)]);
        assert_eq!(starts.time(), Some(at(16)));
    }

    #[test]
    fn what_is_not_ready_is_on_its_way_whatever_was_counted() {
        assert_eq!(noted(&[(0, 5, 2)]).count(), 3, "after a restart");
        assert_eq!(noted(&[(0, 5, 0), (1, 2, 0)]).count(), 2, "taken away before it was ready");
        assert_eq!(noted(&[(0, 5, 5), (1, 5, 4)]).count(), 1, "one failed");
        assert_eq!(noted(&[(0, 5, 5), (1, 3, 5)]).count(), 0, "more are ready than there are to be");
        let mut many = Starts::default();
        for second in 0..100 {
            many.note(at(second), &Observed { desired: second as u32, ready: 0 });
        }
        assert_eq!((many.count(), many.coming.len()), (99, GROUPS));
    }

    #[test]
    fn before_a_pod_is_ready_a_start_takes_as_long_as_it_has_taken() {
        assert_eq!(noted(&[(0, 0, 0)]).at_least(at(9)), None);
        assert_eq!(noted(&[(0, 1, 0), (5, 2, 0)]).at_least(at(20)), Some(at(20)));
        assert_eq!(noted(&[(0, 1, 0), (3, 1, 1), (5, 2, 1)]).at_least(at(60)), Some(at(3)));
    }

    #[test]
    fn late_is_four_starts() {
        let starts = noted(&[(0, 1, 0), (5, 1, 1), (10, 2, 1), (25, 3, 1)]);
        assert_eq!([30, 31, 46].map(|second| starts.late(at(second))), [false, true, true]);
        assert_eq!([31, 45, 46].map(|second| starts.all_late(at(second))), [false, false, true]);
        let unknown = noted(&[(0, 1, 0)]);
        assert_eq!([60, 61].map(|second| unknown.late(at(second))), [false, true]);
        let quick = noted(&[(0, 1, 0), (1, 1, 1), (2, 2, 1)]);
        assert_eq!([12, 13].map(|second| quick.late(at(second))), [false, true]);
        assert!(!noted(&[(0, 1, 1)]).late(at(999)));
    }
}
