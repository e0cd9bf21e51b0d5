//! Analysis of a run: end of the backlog, direction changes and needed pods. Pure: times count from the start of the load.

use std::{cmp::Ordering, time::Duration};

use super::load::Sample;

/// Desired count from a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplicaCount {
    pub(super) at: Duration,
    pub(super) wanted: i32,
}

/// Returns the pods that `rate` requests per second with an in-pod time of `service` need at `target` requests per pod.
pub(super) fn needed(rate: u32, service: Duration, target: f64) -> f64 {
    (f64::from(rate) * service.as_secs_f64() / target).ceil()
}

/// Returns how often the desired count changed its direction, in writes from `from` to `to`. The first write in that time
/// counts if the last one before it had the other direction.
pub(super) fn direction_changes(counts: &[ReplicaCount], from: Duration, to: Duration) -> usize {
    let (mut direction, mut turns) = (Ordering::Equal, 0);
    for pair in counts.windows(2) {
        let next = pair[1].wanted.cmp(&pair[0].wanted);
        if next == Ordering::Equal {
            continue;
        }
        if direction == next.reverse() && (from..=to).contains(&pair[1].at) {
            turns += 1;
        }
        direction = next;
    }
    turns
}

/// Criteria for the end of a backlog, as observed by the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct BacklogEnd {
    /// Longest latency of a request outside of a backlog.
    pub(super) within: Duration,
    /// Time in which every request must meet that latency. With a shorter one, the first request before the backlog has
    /// grown would count.
    pub(super) calm: Duration,
}

impl BacklogEnd {
    /// Returns the first time, at `from` or later, at which the backlog is drained: every request due in the following calm
    /// time meets the latency, and every earlier request has ended. `None` if the samples, sorted by due time, contain no
    /// complete calm time.
    pub(super) fn since(&self, samples: &[Sample], from: Duration) -> Option<Duration> {
        let (mut since, mut last_end) = (None, Duration::ZERO);
        for sample in samples {
            last_end = last_end.max(sample.end);
            if sample.due < from {
                continue;
            }
            if !sample.succeeded || last_end > sample.due + self.within {
                since = None;
                continue;
            }
            let first = *since.get_or_insert(sample.due);
            if sample.due - first >= self.calm {
                return Some(first);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn pods_needed_follow_from_littles_law() {
        let cases =
            [(50, 300, 3.5, 5.0), (50, 300, 5.0, 3.0), (10, 100, 70.0, 1.0), (7, 1000, 3.5, 2.0), (8, 1000, 3.5, 3.0)];
        for (rate, service, target, pods) in cases {
            assert!((needed(rate, ms(service), target) - pods).abs() < 1e-9, "{rate} rps of {service} ms at {target}");
        }
    }

    #[test]
    fn direction_changes_are_counted_not_writes() {
        // One write per second from 0 s; the range is 3 s to 8 s.
        let cases: [(&[i32], usize); 11] = [
            (&[], 0),
            (&[5], 0),
            (&[0, 1, 2, 3, 4, 5, 6, 7], 0),
            (&[0, 2, 9, 9, 7, 5, 5], 1),
            (&[0, 1, 2, 9, 9, 5, 5, 9], 2),
            (&[9, 1, 9, 9, 9, 9], 0),
            (&[9, 9, 1, 1, 9, 9], 1),
            (&[0, 9, 8, 9, 8, 9, 8, 9, 8, 9, 8, 9], 6),
            (&[0, 0, 0, 0, 5, 4, 5], 2),
            (&[5, 5, 5, 5, 4, 4, 4, 4, 4, 5], 0),
            (&[5, 5, 5, 5, 4, 4, 4, 4, 5, 4], 1),
        ];
        for (wanted, turns) in cases {
            let counts: Vec<_> =
                wanted.iter().enumerate().map(|(n, w)| ReplicaCount { at: ms(1000 * n as u64), wanted: *w }).collect();
            assert_eq!(direction_changes(&counts, ms(3000), ms(8000)), turns, "{wanted:?}");
        }
    }

    /// One request per 100 ms, which takes this many milliseconds; 0 fails immediately.
    fn samples(took: &[u64]) -> Vec<Sample> {
        let sample = |(n, took): (usize, &u64)| {
            let due = ms(100 * n as u64);
            Sample { due, end: due + ms(*took), succeeded: *took > 0 }
        };
        took.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn a_backlog_ends_when_every_request_meets_the_latency() {
        let drained = BacklogEnd { within: ms(200), calm: ms(300) };
        let cases: [(&str, &[u64], u64, Option<u64>); 11] = [
            ("never a backlog", &[150, 150, 150, 150, 150], 0, Some(0)),
            ("not before the first pod", &[150, 150, 150, 150, 150, 150], 200, Some(200)),
            ("a queue that shrinks", &[900, 700, 500, 300, 200, 150, 150, 150, 150, 150, 150, 150], 0, Some(700)),
            ("those before are in time", &[350, 250, 150, 150, 150, 150, 150], 0, Some(200)),
            ("a lucky first request", &[150, 400, 350, 250, 150, 150, 150, 150], 0, Some(400)),
            (
                "one old request is still open",
                &[1000, 150, 150, 150, 150, 150, 150, 150, 150, 150, 150, 150],
                0,
                Some(800),
            ),
            ("failed requests are no sign of calm", &[0, 0, 0, 0, 0, 150, 150, 150, 150], 0, Some(500)),
            ("a failure in the calm time", &[150, 150, 150, 0, 150, 150, 150, 150], 0, Some(400)),
            ("too few requests to tell", &[400, 150, 150, 150], 0, None),
            ("never drained", &[300, 300, 300, 300, 300, 300], 0, None),
            ("no request", &[], 0, None),
        ];
        for (name, took, from, expected) in cases {
            assert_eq!(drained.since(&samples(took), ms(from)), expected.map(ms), "{name}");
        }
    }
}
