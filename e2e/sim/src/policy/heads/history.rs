//! The integral of concurrency over time, and its average over a window.

use std::{collections::VecDeque, time::Duration};

/// Minimum interval of demand frames.
const CLOSEST: Duration = Duration::from_millis(250);

/// Minimum time to average over, unless the window is shorter.
const SHORTEST: Duration = Duration::from_secs(1);

/// The integral at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    /// Nanoseconds.
    at: u64,
    request_us: u64,
}

/// Points no closer together than a sixteenth of the panic window or [`CLOSEST`], over the stable window.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    points: VecDeque<Point>,
    /// Moment of the point before the newest.
    before: Option<u64>,
}

impl History {
    pub(super) fn record(&mut self, now: Duration, request_us: u64, stable: Duration, panic: Duration) {
        let (now, stable) = (nanos(now), nanos(stable));
        let point = Point { at: now, request_us };
        let closest = nanos((panic / 16).min(CLOSEST));
        // The newest point is replaced until it is far enough from the point before it.
        match self.points.back_mut() {
            Some(last) if self.before.is_some_and(|before| last.at - before < closest) => *last = point,
            Some(last) => {
                self.before = Some(last.at);
                self.points.push_back(point);
            }
            None => self.points.push_back(point),
        }
        // One point older than the window is kept as the base of the average.
        while self.points.len() > 2 && now.saturating_sub(self.points[1].at) >= stable {
            self.points.pop_front();
        }
    }

    /// Drops all but the newest point.
    pub(super) fn keep_newest(&mut self) {
        self.points.drain(..self.points.len().saturating_sub(1));
        self.before = None;
    }

    /// Returns the average concurrency over the last `window`, or over what is known where that is shorter.
    pub(super) fn average(&self, window: Duration) -> f64 {
        let (Some(first), Some(last)) = (self.points.front(), self.points.back()) else { return 0.0 };
        let from = last.at.saturating_sub(nanos(window)).max(first.at);
        if last.at == from {
            return 0.0;
        }
        let seconds = Duration::from_nanos(last.at - from).max(window.min(SHORTEST)).as_secs_f64();
        let before = if from > first.at { self.at(from) } else { first.request_us as f64 };
        ((last.request_us as f64 - before) / 1e6 / seconds).max(0.0)
    }

    /// Interpolates the integral at a moment between the first and the last point.
    fn at(&self, moment: u64) -> f64 {
        let next = self.points.partition_point(|point| point.at <= moment);
        let (a, b) = (&self.points[next - 1], &self.points[next]);
        let seconds = |from, to| Duration::from_nanos(to - from).as_secs_f64();
        let part = seconds(a.at, moment) / seconds(a.at, b.at);
        a.request_us as f64 + (b.request_us as f64 - a.request_us as f64) * part
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_over_the_window_or_the_recorded_time() {
        let (mut history, at) = (History::default(), Duration::from_secs);
        // A concurrency of one for ten seconds, then three.
        for second in 0..=20u64 {
            let request_us = second.min(10) * 1_000_000 + second.saturating_sub(10) * 3_000_000;
            history.record(at(second), request_us, at(60), at(6));
        }
        let averages = [5, 15, 60].map(|window| history.average(at(window)));
        assert_eq!(averages.map(|a| (a * 1_000.0).round()), [3_000.0, 2_333.0, 2_000.0]);
        history.keep_newest();
        assert_eq!(history.average(at(60)).to_bits(), 0);
    }
}
