//! Two monotonic counters over time, and their average rate over the last so many seconds.

use std::{collections::VecDeque, time::Duration};

use crate::Demand;

/// The counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    at: Duration,
    request_us: u64,
    arrivals: u64,
}

/// Points no closer together than a sixteenth of the panic window or a quarter of a second, over the stable window. With
/// the widest bounds that a Function can state points would number tens of thousands, so the count is capped as well: past
/// [`MAX_POINTS`] every second point goes, so that what is long ago is known in less detail.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    points: VecDeque<Point>,
}

const MAX_POINTS: usize = 512;

/// Frames come no more often.
const CLOSEST: Duration = Duration::from_millis(250);

/// Average rates over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Average {
    /// Requests at once.
    pub(crate) concurrency: f64,
    /// Requests a second.
    pub(crate) rps: f64,
}

impl History {
    /// Notes the counters as of `now`. A moment before the latest one is taken as the latest one.
    pub(crate) fn record(&mut self, now: Duration, demand: &Demand, stable: Duration, panic: Duration) {
        let point = Point { at: now, request_us: demand.request_us, arrivals: demand.arrivals };
        let closest = (panic / 16).min(CLOSEST);
        match self.points.len() {
            0 => self.points.push_back(point),
            n => {
                let last = self.points[n - 1];
                let at = now.max(last.at);
                let point = Point { at, ..point };
                // The newest point moves along with time until it is far enough from the one before it.
                let before = if n > 1 { Some(self.points[n - 2].at) } else { None };
                if before.is_some_and(|b| last.at.saturating_sub(b) < closest) {
                    self.points[n - 1] = point;
                } else {
                    self.points.push_back(point);
                }
            }
        }
        // One point older than the window stays, to measure from.
        while self.points.len() > 2 && now.saturating_sub(self.points[1].at) >= stable {
            self.points.pop_front();
        }
        if self.points.len() > MAX_POINTS {
            let newest = self.points.len() - 1;
            let mut index = 0;
            self.points.retain(|_| {
                index += 1;
                index % 2 == 1 || index > newest
            });
        }
    }

    /// Forgets all but the newest point.
    pub(crate) fn keep_newest(&mut self) {
        if self.points.len() > 1 {
            self.points = self.points.pop_back().into_iter().collect();
        }
    }

    /// Average over the last `window`, or over what is known where that is shorter. Nothing known: zero.
    pub(crate) fn average(&self, window: Duration) -> Average {
        let (Some(first), Some(last)) = (self.points.front(), self.points.back()) else { return Average::default() };
        let from = last.at.saturating_sub(window);
        let start =
            if from <= first.at { (first.at, first.request_us as f64, first.arrivals as f64) } else { self.at(from) };
        let seconds = last.at.saturating_sub(start.0).as_secs_f64();
        if seconds <= 0.0 {
            return Average::default();
        }
        Average {
            concurrency: ((last.request_us as f64 - start.1) / 1e6 / seconds).max(0.0),
            rps: ((last.arrivals as f64 - start.2) / seconds).max(0.0),
        }
    }

    /// Index of the first point after a moment. It is near one of the ends as a rule, and what lies between is not looked at:
    /// of ten thousand functions none has its points in the processor's cache.
    fn after(&self, moment: Duration) -> usize {
        let (points, mut step) = (&self.points, 1);
        if points.get(1).is_none_or(|p| p.at > moment) {
            return usize::from(points.front().is_some_and(|p| p.at <= moment));
        }
        let mut end = points.len();
        while end > step && points[end - step].at > moment {
            end -= step;
            step *= 2;
        }
        let mut begin = end.saturating_sub(step);
        while begin < end {
            let middle = begin.midpoint(end);
            if points[middle].at <= moment {
                begin = middle + 1;
            } else {
                end = middle;
            }
        }
        begin
    }

    /// The counters at a moment between two points, as if they had grown evenly.
    fn at(&self, moment: Duration) -> (Duration, f64, f64) {
        let next = self.after(moment).clamp(1, self.points.len() - 1);
        let (a, b) = (self.points[next - 1], self.points[next]);
        let span = b.at.saturating_sub(a.at).as_secs_f64();
        let part = if span > 0.0 { moment.saturating_sub(a.at).as_secs_f64() / span } else { 0.0 };
        let between = |x: u64, y: u64| x as f64 + (y as f64 - x as f64) * part;
        (moment, between(a.request_us, b.request_us), between(a.arrivals, b.arrivals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STABLE: Duration = Duration::from_secs(60);
    const PANIC: Duration = Duration::from_secs(6);

    /// A history of `levels`, one concurrency for each second.
    fn of(levels: &[u64]) -> History {
        let mut history = History::default();
        let mut demand = Demand::default();
        history.record(Duration::ZERO, &demand, STABLE, PANIC);
        for (second, level) in (1..).zip(levels) {
            demand.request_us += level * 1_000_000;
            demand.arrivals += level;
            history.record(Duration::from_secs(second), &demand, STABLE, PANIC);
        }
        history
    }

    #[test]
    fn averages_over_the_window() {
        let mut levels = vec![0; 54];
        levels.extend([10; 6]);
        let history = of(&levels);
        assert!((history.average(PANIC).concurrency - 10.0).abs() < 1e-9);
        assert!((history.average(STABLE).concurrency - 1.0).abs() < 1e-9);
        assert!((history.average(PANIC).rps - 10.0).abs() < 1e-9);
    }

    #[test]
    fn the_first_point_after_a_moment() {
        for length in 0..40u64 {
            let mut history = History::default();
            // Each moment twice now and then, as from a clock that stood still.
            let at = |n: u64| Duration::from_secs(n / 3 * 2 + n % 3);
            history.points = (0..length).map(|n| Point { at: at(n), request_us: 0, arrivals: 0 }).collect();
            for moment in (0..80).map(|half| Duration::from_millis(half * 500)) {
                let plain = history.points.partition_point(|p| p.at <= moment);
                assert_eq!(history.after(moment), plain, "{length} points, {moment:?}");
            }
        }
    }

    #[test]
    fn a_short_history_is_averaged_over_what_there_is() {
        assert!((of(&[4, 4]).average(STABLE).concurrency - 4.0).abs() < 1e-9);
        assert_eq!(History::default().average(STABLE), Average::default());
    }

    #[test]
    fn old_points_go_and_the_number_is_bounded() {
        let mut history = History::default();
        let mut demand = Demand::default();
        for step in 0..100_000u64 {
            demand.request_us += 3 * 10_000;
            history.record(
                Duration::from_millis(step * 10),
                &demand,
                Duration::from_secs(3600),
                Duration::from_secs(1),
            );
            assert!(history.points.len() <= MAX_POINTS);
        }
        assert!((history.average(Duration::from_secs(600)).concurrency - 3.0).abs() < 0.01);
        assert!((history.average(Duration::from_secs(1)).concurrency - 3.0).abs() < 0.01);
    }

    #[test]
    fn a_clock_that_goes_back_does_no_harm() {
        let mut history = of(&[5, 5, 5]);
        history.record(
            Duration::from_secs(1),
            &Demand { request_us: 15_000_000, arrivals: 15, ..Demand::default() },
            STABLE,
            PANIC,
        );
        assert!(history.average(PANIC).concurrency <= 5.0);
    }
}
