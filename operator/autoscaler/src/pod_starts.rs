//! Pending pods (requested and not ready) and the pod start time.
//!
//! Only the desired and the ready count are known, so the pods that become ready are assumed to be those that were requested
//! first. Late pods are excluded: otherwise one pod that never starts would add its age to each later start.

use std::time::Duration;

use crate::Observed;

/// Maximum number of groups. Beyond it new pods join the newest group, whose request time becomes theirs: otherwise they
/// would be late as soon as that group is.
const GROUPS: usize = 8;

/// A start shorter than the estimate lowers the estimate by 1/`EASE` of the difference. A longer start raises it at once, up
/// to the bound from which a pod is late.
const EASE: u32 = 4;

/// Time after which a pod is late while no start time is known: the default cold start timeout of a Function.
const LATE_UNKNOWN: Duration = Duration::from_secs(60);

/// A pod is late after this multiple of the start time, but not before [`LATE_LEAST`].
const LATE: u32 = 4;
const LATE_LEAST: Duration = Duration::from_secs(10);

/// Pending pods and the start time of a revision. See the module documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodStarts {
    last: Option<Observed>,
    /// Pending pods, oldest first. At most [`GROUPS`].
    pending: Vec<Group>,
    /// Pods that were late when pods requested after them became ready: the cause is the pod and not the cluster.
    stuck: u32,
    /// Estimate of the start time.
    time: Option<Duration>,
}

/// Pods that were requested at the same time.
#[derive(Clone, Copy, Debug)]
struct Group {
    requested: Duration,
    count: u32,
    /// Whether the pods are new. The time until a failed pod is ready again is not a start time.
    new: bool,
}

impl PodStarts {
    /// Records the observed counts at `now`.
    pub(crate) fn record(&mut self, now: Duration, observed: &Observed) {
        let before = self.last.replace(*observed).unwrap_or(Observed { desired: 0, ready: 0 });
        if before == *observed {
            return;
        }
        let started = observed.ready.saturating_sub(before.ready);
        self.record_ready(now, started);
        // The observed counts take precedence: pods are also removed, fail, or become ready without having been requested.
        let (pending, counted) = (observed.desired.saturating_sub(observed.ready), self.count());
        if pending > counted {
            let failed = before.ready.saturating_sub(observed.ready).min(pending - counted);
            self.add_pending(now, failed, false);
            self.add_pending(now, pending - counted - failed, true);
        } else {
            self.remove_newest(counted - pending);
        }
    }

    fn record_ready(&mut self, now: Duration, mut started: u32) {
        // A late pod usually waited for capacity, which is not start time.
        let bound = self.time.map_or(Duration::MAX, |_| self.late_after());
        while started > 0 {
            // A late pod is unlikely to be the one that became ready, if there are others. Requires a known start time.
            let in_time = |group: &Group| self.time.is_none() || !self.is_late(group, now);
            let in_time = self.pending.iter().position(in_time).unwrap_or(0);
            let Some(group) = self.pending.get_mut(in_time) else {
                self.stuck = self.stuck.saturating_sub(started);
                return;
            };
            let (some, new) = (started.min(group.count), group.new);
            let took = now.saturating_sub(group.requested).min(bound);
            started -= some;
            group.count -= some;
            if new {
                self.time = Some(match self.time {
                    Some(time) if took < time => time - (time - took) / EASE,
                    _ => took,
                });
                self.stuck += self.pending.drain(..in_time).map(|group| group.count).sum::<u32>();
            }
            self.pending.retain(|group| group.count > 0);
        }
    }

    fn add_pending(&mut self, now: Duration, count: u32, new: bool) {
        if count == 0 {
            return;
        }
        let full = self.pending.len() == GROUPS;
        match self.pending.last_mut() {
            Some(newest) if full || (newest.requested == now && newest.new == new) => {
                newest.count += count;
                newest.requested = now;
            }
            _ => self.pending.push(Group { requested: now, count, new }),
        }
    }

    fn remove_newest(&mut self, mut many: u32) {
        while let Some(newest) = self.pending.last_mut().filter(|_| many > 0) {
            let some = many.min(newest.count);
            many -= some;
            newest.count -= some;
            if newest.count == 0 {
                self.pending.pop();
            }
        }
        self.stuck = self.stuck.saturating_sub(many);
    }

    fn count(&self) -> u32 {
        self.pending.iter().map(|group| group.count).sum::<u32>() + self.stuck
    }

    /// Returns the start time, if a pod has started.
    pub(crate) fn time(&self) -> Option<Duration> {
        self.time
    }

    /// Returns the start time, or a lower bound before a pod is ready: the age of the oldest pending pod. A pod may serve
    /// before it is reported ready.
    pub(crate) fn time_or_bound(&self, now: Duration) -> Option<Duration> {
        self.time.or_else(|| self.pending.first().map(|group| now.saturating_sub(group.requested)))
    }

    /// Sets the start time, unless one is known.
    pub(crate) fn assume(&mut self, time: Duration) {
        self.time.get_or_insert(time);
    }

    /// Returns whether a pod is pending.
    pub(crate) fn any_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Returns whether the oldest pending pod is late.
    pub(crate) fn oldest_late(&self, now: Duration) -> bool {
        self.pending.first().is_some_and(|group| self.is_late(group, now))
    }

    /// Returns whether the newest pending pod is late.
    pub(crate) fn newest_late(&self, now: Duration) -> bool {
        self.pending.last().is_some_and(|group| self.is_late(group, now))
    }

    fn is_late(&self, group: &Group, now: Duration) -> bool {
        now.saturating_sub(group.requested) > self.late_after()
    }

    fn late_after(&self) -> Duration {
        self.time.map_or(LATE_UNKNOWN, |time| time.saturating_mul(LATE).max(LATE_LEAST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn recorded(all: &[(u64, u32, u32)]) -> PodStarts {
        let mut starts = PodStarts::default();
        for (second, desired, ready) in all {
            starts.record(at(*second), &Observed { desired: *desired, ready: *ready });
        }
        starts
    }

    #[test]
    fn start_time_is_from_the_scale_to_the_ready_pod() {
        let starts = recorded(&[(0, 0, 0), (10, 1, 0), (13, 1, 1)]);
        assert_eq!((starts.time(), starts.any_pending()), (Some(at(3)), false));
        assert_eq!(recorded(&[(0, 0, 0), (10, 1, 0)]).time(), None);
    }

    #[test]
    fn the_first_requested_pod_is_the_first_ready_pod() {
        let starts = recorded(&[(0, 1, 0), (8, 3, 0), (10, 3, 1)]);
        assert_eq!((starts.time(), starts.count()), (Some(at(10)), 2));
        let starts = recorded(&[(0, 1, 0), (8, 3, 0), (10, 3, 1), (12, 3, 3)]);
        assert_eq!(starts.time(), Some(at(10) - at(6) / EASE));
    }

    #[test]
    fn a_longer_start_applies_at_once_and_a_shorter_one_gradually() {
        let starts = recorded(&[(0, 1, 0), (5, 1, 1), (10, 2, 1), (30, 2, 2)]);
        assert_eq!(starts.time(), Some(at(20)));
        let starts = recorded(&[(0, 1, 0), (20, 1, 1), (30, 2, 1), (34, 2, 2)]);
        assert_eq!(starts.time(), Some(at(16)));
    }

    #[test]
    fn observed_counts_take_precedence_over_tracked_pods() {
        assert_eq!(recorded(&[(0, 5, 2)]).count(), 3, "after a restart");
        assert_eq!(recorded(&[(0, 5, 0), (1, 2, 0)]).count(), 2, "removed before they were ready");
        assert_eq!(recorded(&[(0, 5, 5), (1, 5, 4)]).count(), 1, "one failed");
        assert_eq!(recorded(&[(0, 5, 5), (1, 3, 5)]).count(), 0, "more are ready than desired");
        let mut many = PodStarts::default();
        for second in 0..100 {
            many.record(at(second), &Observed { desired: second as u32, ready: 0 });
        }
        assert_eq!((many.count(), many.pending.len()), (99, GROUPS));
    }

    #[test]
    fn elapsed_time_is_a_lower_bound_before_the_first_start() {
        assert_eq!(recorded(&[(0, 0, 0)]).time_or_bound(at(9)), None);
        assert_eq!(recorded(&[(0, 1, 0), (5, 2, 0)]).time_or_bound(at(20)), Some(at(20)));
        assert_eq!(recorded(&[(0, 1, 0), (3, 1, 1), (5, 2, 1)]).time_or_bound(at(60)), Some(at(3)));
    }

    #[test]
    fn a_pod_that_never_starts_does_not_change_the_start_time() {
        // One of two is ready after two seconds and the other never. Two more are requested after a minute.
        let starts = recorded(&[(0, 2, 0), (2, 2, 1), (60, 4, 1), (62, 4, 3)]);
        assert_eq!((starts.time(), starts.count(), starts.any_pending()), (Some(at(2)), 1, false));
        assert!(!starts.oldest_late(at(999)), "pods requested later are ready: there is capacity");
        let starts = recorded(&[(0, 2, 0), (2, 2, 1), (60, 4, 1), (62, 4, 3), (99, 4, 4), (100, 5, 4)]);
        assert_eq!((starts.time(), starts.count(), starts.any_pending()), (Some(at(2)), 1, true));
        assert_eq!(recorded(&[(0, 2, 0), (2, 2, 1), (60, 4, 1), (62, 4, 3), (70, 3, 3)]).count(), 0, "removed");
        // If all pending pods are late, one of them became ready, and its start time is bounded.
        assert_eq!(recorded(&[(0, 2, 0), (2, 2, 1), (60, 2, 2)]).time(), Some(LATE_LEAST));
    }

    #[test]
    fn a_recovered_pod_is_not_a_start() {
        let starts = recorded(&[(0, 5, 0), (2, 5, 5), (60, 5, 3), (360, 5, 5)]);
        assert_eq!((starts.time(), starts.any_pending()), (Some(at(2)), false));
        assert!(recorded(&[(0, 5, 0), (2, 5, 5), (60, 5, 3)]).oldest_late(at(71)), "but it may be late");
    }

    #[test]
    fn pods_beyond_the_group_limit_are_not_late_at_once() {
        let mut all = vec![(0, 1, 0), (1, 1, 1)];
        all.extend((0..12).map(|pods| (10 + u64::from(pods) * 20, 2 + pods, 1)));
        let starts = recorded(&all);
        assert_eq!((starts.count(), starts.pending.len()), (12, GROUPS));
        assert_eq!([240, 241].map(|second| starts.newest_late(at(second))), [false, true]);
    }

    #[test]
    fn late_after_four_start_times() {
        let starts = recorded(&[(0, 1, 0), (5, 1, 1), (10, 2, 1), (25, 3, 1)]);
        assert_eq!([30, 31, 46].map(|second| starts.oldest_late(at(second))), [false, true, true]);
        assert_eq!([31, 45, 46].map(|second| starts.newest_late(at(second))), [false, false, true]);
        let unknown = recorded(&[(0, 1, 0)]);
        assert_eq!([60, 61].map(|second| unknown.oldest_late(at(second))), [false, true]);
        let quick = recorded(&[(0, 1, 0), (1, 1, 1), (2, 2, 1)]);
        assert_eq!([12, 13].map(|second| quick.oldest_late(at(second))), [false, true]);
        assert!(!recorded(&[(0, 1, 1)]).oldest_late(at(999)));
    }
}
