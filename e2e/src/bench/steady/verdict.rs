//! What a steady load's timeline amounts to. Pure: times count from the start of the load.

use std::{cmp::Ordering, time::Duration};

use super::load::Sample;

/// The wanted count of pods from a moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) at: Duration,
    pub(super) wanted: i32,
}

/// Pods that `rate` requests a second of `service` need at `target` requests in a pod.
pub(super) fn needed(rate: u32, service: Duration, target: f64) -> f64 {
    (f64::from(rate) * service.as_secs_f64() / target).ceil()
}

/// How often the wanted count turned from rising to falling or back, in writes from `from` to `to`. The first write in that time
/// turns if the last one before it went the other way.
pub(super) fn direction_changes(counts: &[Count], from: Duration, to: Duration) -> usize {
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

/// How the end of a backlog shows at the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drained {
    /// A request that did not wait in a backlog takes no longer than this.
    pub(super) within: Duration,
    /// For so long no request may have waited in one. A shorter time is a lucky moment before the backlog has grown.
    pub(super) calm: Duration,
}

impl Drained {
    /// The first moment, not before `from`, at which the backlog is drained: a request that was due then, and every one due in
    /// the calm time that follows, has its response in time, and so has each that was due earlier. None if the samples, which
    /// are in the order in which they were due, do not show such a time in full.
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
    fn turns_are_counted_and_not_moves() {
        // One write a second from 0 s on; what counts is from 3 s to 8 s.
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
                wanted.iter().enumerate().map(|(n, w)| Count { at: ms(1000 * n as u64), wanted: *w }).collect();
            assert_eq!(direction_changes(&counts, ms(3000), ms(8000)), turns, "{wanted:?}");
        }
    }

    /// A request each 100 ms, which takes so many ms; 0 is one that fails at once.
    fn samples(took: &[u64]) -> Vec<Sample> {
        let sample = |(n, took): (usize, &u64)| {
            let due = ms(100 * n as u64);
            Sample { due, end: due + ms(*took), succeeded: *took > 0 }
        };
        took.iter().enumerate().map(sample).collect()
    }

    #[test]
    fn a_backlog_is_drained_when_no_request_waits_in_one_any_more() {
        let drained = Drained { within: ms(200), calm: ms(300) };
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
