//! Pods on their way: how many were asked for and are not ready, since when, and how long a pod takes to start.
//!
//! All that is known of pods is how many there are to be and how many are ready, so pods that become ready are taken to be
//! those that were asked for first, but for those that are late: one pod that never starts would else give its age to each
//! that starts after it.

use std::time::Duration;

use crate::Observed;

/// Groups of pods that were asked for at different times. What is asked for while so many are under way counts as asked for
/// with the newest, and these as asked for with it: were they late already, it would be late as soon as it is asked for.
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
    /// Pods that were asked for and are not ready, oldest first. At most [`GROUPS`].
    coming: Vec<Group>,
    /// Pods that were late when others, which were asked for after them, became ready: something is wrong with them alone.
    stuck: u32,
    /// How long a pod takes to start.
    time: Option<Duration>,
}

/// Pods that were asked for at one time.
#[derive(Clone, Copy, Debug)]
struct Group {
    asked: Duration,
    count: u32,
    /// Whether they are new. Of one that was ready before and failed, the time until it is ready again is no start time.
    new: bool,
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
            let failed = before.ready.saturating_sub(observed.ready).min(coming - counted);
            self.ask(now, failed, false);
            self.ask(now, coming - counted - failed, true);
        } else {
            self.forget_newest(counted - coming);
        }
    }

    fn arrive(&mut self, now: Duration, mut started: u32) {
        while started > 0 {
            // One that is late is likely to stay so, if there are others. What late is has to be known from a start.
            let timely = |group: &Group| self.time.is_none() || !self.is_late(group, now);
            let timely = self.coming.iter().position(timely).unwrap_or(0);
            let Some(group) = self.coming.get_mut(timely) else {
                self.stuck = self.stuck.saturating_sub(started);
                return;
            };
            let (took, some, new) = (now.saturating_sub(group.asked), started.min(group.count), group.new);
            started -= some;
            group.count -= some;
            if new {
                self.time = Some(match self.time {
                    Some(time) if took < time => time - (time - took) / EASE,
                    _ => took,
                });
                self.stuck += self.coming.drain(..timely).map(|group| group.count).sum::<u32>();
            }
            self.coming.retain(|group| group.count > 0);
        }
    }

    fn ask(&mut self, now: Duration, count: u32, new: bool) {
        if count == 0 {
            return;
        }
        let full = self.coming.len() == GROUPS;
        match self.coming.last_mut() {
            Some(newest) if full || (newest.asked == now && newest.new == new) => {
                newest.count += count;
                newest.asked = now;
            }
            _ => self.coming.push(Group { asked: now, count, new }),
        }
    }

    fn forget_newest(&mut self, mut many: u32) {
        while let Some(newest) = self.coming.last_mut().filter(|_| many > 0) {
            let some = many.min(newest.count);
            many -= some;
            newest.count -= some;
            if newest.count == 0 {
                self.coming.pop();
            }
        }
        self.stuck = self.stuck.saturating_sub(many);
    }

    fn count(&self) -> u32 {
        self.coming.iter().map(|group| group.count).sum::<u32>() + self.stuck
    }

    /// How long a pod takes to start, if one has.
    pub(crate) fn time(&self) -> Option<Duration> {
        self.time
    }

    /// The same, or, before one has become ready, for how long the first has been on its way: a pod may serve before it is
    /// called ready. `None` if none is.
    pub(crate) fn at_least(&self, now: Duration) -> Option<Duration> {
        self.time.or_else(|| self.coming.first().map(|group| now.saturating_sub(group.asked)))
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
        self.coming.first().is_some_and(|group| self.is_late(group, now))
    }

    /// Whether the pods that were asked for last should be, too.
    pub(crate) fn all_late(&self, now: Duration) -> bool {
        self.coming.last().is_some_and(|group| self.is_late(group, now))
    }

    fn is_late(&self, group: &Group, now: Duration) -> bool {
        now.saturating_sub(group.asked) > self.bound()
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
    fn a_pod_that_never_starts_says_nothing_of_those_that_do() {
        // Of two, one is ready after two seconds and the other never. Two more are asked for after a minute.
        let starts = noted(&[(0, 2, 0), (2, 2, 1), (60, 4, 1), (62, 4, 3)]);
        assert_eq!((starts.time(), starts.count(), starts.any()), (Some(at(2)), 1, false));
        assert!(!starts.late(at(999)), "others were ready after it: there is capacity");
        let starts = noted(&[(0, 2, 0), (2, 2, 1), (60, 4, 1), (62, 4, 3), (99, 4, 4), (100, 5, 4)]);
        assert_eq!((starts.time(), starts.count(), starts.any()), (Some(at(2)), 1, true));
        assert_eq!(noted(&[(0, 2, 0), (2, 2, 1), (60, 4, 1), (62, 4, 3), (70, 3, 3)]).count(), 0, "taken away");
        // If there is none but late ones, it was late.
        assert_eq!(noted(&[(0, 2, 0), (2, 2, 1), (60, 2, 2)]).time(), Some(at(60)));
    }

    #[test]
    fn a_pod_that_failed_and_is_back_is_no_start() {
        let starts = noted(&[(0, 5, 0), (2, 5, 5), (60, 5, 3), (360, 5, 5)]);
        assert_eq!((starts.time(), starts.any()), (Some(at(2)), false));
        assert!(noted(&[(0, 5, 0), (2, 5, 5), (60, 5, 3)]).late(at(71)), "but it may be late");
    }

    #[test]
    fn what_is_asked_for_beyond_the_groups_has_its_time_to_start() {
        let mut all = vec![(0, 1, 0), (1, 1, 1)];
        all.extend((0..12).map(|pods| (10 + u64::from(pods) * 20, 2 + pods, 1)));
        let starts = noted(&all);
        assert_eq!((starts.count(), starts.coming.len()), (12, GROUPS));
        assert_eq!([240, 241].map(|second| starts.all_late(at(second))), [false, true]);
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
