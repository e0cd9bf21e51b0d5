//! Samples of the demand counters, and average rates over a window.

use std::time::Duration;

use crate::{Demand, inline_ends_deque::InlineEndsDeque};

/// The counters at one time.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    /// Nanoseconds, enough for five hundred years.
    at: u64,
    request_us: u64,
    busy_us: u64,
    /// Arrivals that were not abandoned. The only counter that can decrease.
    work: u64,
    completions: u64,
}

/// Samples over the stable window, spaced by at least a sixteenth of the panic window or a quarter of a second. With the
/// largest windows of the API there would be tens of thousands, so beyond [`MAX_POINTS`] every second point is dropped, and
/// older demand is known in less detail.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    points: InlineEndsDeque<Point>,
    /// Time of the point before the newest.
    before: Option<u64>,
}

const MAX_POINTS: usize = 512;

/// Minimum interval between demand frames.
pub(crate) const FRAME: Duration = Duration::from_millis(250);

/// Minimum time to average over, unless the window is shorter.
const SHORTEST: Duration = Duration::from_secs(1);

/// Average rates over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Average {
    /// Concurrent requests in pods and in the queue.
    pub(crate) concurrency: f64,
    /// Concurrent requests in pods. At most `concurrency`.
    pub(crate) busy: f64,
    /// Arrivals per second that were not abandoned.
    pub(crate) rps: f64,
    /// Requests per second that completed in a pod.
    pub(crate) completions: f64,
}

impl Point {
    fn of(at: u64, demand: &Demand) -> Self {
        Self {
            at,
            request_us: demand.request_us,
            busy_us: demand.busy_us,
            work: demand.work(),
            completions: demand.completions,
        }
    }
}

impl History {
    /// Records the counters at `now`. A time before the newest point counts as the time of the newest point.
    pub(crate) fn record(&mut self, now: Duration, demand: &Demand, stable: Duration, panic: Duration) {
        let now = nanos(now);
        let point = Point::of(now, demand);
        let closest = nanos((panic / 16).min(FRAME));
        // The newest point is replaced until it is far enough from the point before it.
        match self.points.back_mut() {
            Some(last) if self.before.is_some_and(|before| last.at - before < closest) => {
                *last = Point { at: now.max(last.at), ..point };
            }
            Some(last) => {
                let at = now.max(last.at);
                self.before = Some(last.at);
                self.points.push_back(Point { at, ..point });
            }
            None => self.points.push_back(point),
        }
        // One point older than the window is kept as the base of the rates.
        let stable = nanos(stable);
        while self.points.len() > 2 && now.saturating_sub(self.points[1].at) >= stable {
            self.points.pop_front();
        }
        if self.points.len() > MAX_POINTS {
            self.thin();
        }
    }

    /// Drops every second point, but not the newest.
    fn thin(&mut self) {
        let mut kept = Self::default();
        let newest = self.points.len() - 1;
        for index in 0..=newest {
            if index % 2 == 0 || index == newest {
                kept.before = kept.points.back().map(|before| before.at);
                kept.points.push_back(self.points[index]);
            }
        }
        *self = kept;
    }

    /// Drops all points but the newest.
    pub(crate) fn keep_newest(&mut self) {
        let mut newest = Self::default();
        if let Some(point) = self.points.pop_back() {
            newest.points.push_back(point);
        }
        *self = newest;
    }

    /// Returns the average over the last `window`, or over the recorded time if that is shorter; zero if nothing is recorded.
    /// Averages over at least one second, as the published autoscaler does, since arrivals within milliseconds are no
    /// measure of concurrency.
    pub(crate) fn average(&self, window: Duration) -> Average {
        let (Some(first), Some(last)) = (self.points.front(), self.points.back()) else { return Average::default() };
        let from = last.at.saturating_sub(nanos(window)).max(first.at);
        if last.at == from {
            return Average::default();
        }
        let seconds = Duration::from_nanos(last.at - from).max(window.min(SHORTEST)).as_secs_f64();
        // The stable window mostly starts at the first point, which needs no search.
        let (base, after, part) = if from > first.at { self.at(from) } else { (first, first, 0.0) };
        let rate = |unit: f64, of: fn(&Point) -> u64| {
            let begin = of(base) as f64 + (of(after) as f64 - of(base) as f64) * part;
            ((of(last) as f64 - begin) / unit / seconds).max(0.0)
        };
        let concurrency = rate(1e6, |p| p.request_us);
        Average {
            concurrency,
            busy: rate(1e6, |p| p.busy_us).min(concurrency),
            rps: rate(1.0, |p| p.work),
            completions: rate(1.0, |p| p.completions),
        }
    }

    /// Returns the points around a time in `[first, last)` and its relative position between them. Counters are interpolated
    /// linearly.
    fn at(&self, moment: u64) -> (&Point, &Point, f64) {
        let next = self.after(moment);
        let (a, b) = (&self.points[next - 1], &self.points[next]);
        (a, b, (moment - a.at) as f64 / (b.at - a.at) as f64)
    }

    /// Returns the index of the first point after a time in `[first, last)`.
    ///
    /// An exponential search that starts at the index for evenly spaced points. The cost is the number of points read, since
    /// none is in the CPU cache.
    fn after(&self, moment: u64) -> usize {
        // Invariant: the point before `begin` is not after `moment`; the point at `end`, if any, is.
        let (mut begin, mut end) = (1, self.points.len());
        let (mut probe, mut step) = (self.expected(moment).max(begin), 1);
        while begin < end {
            if !(begin..end).contains(&probe) {
                probe = begin.midpoint(end);
            }
            if self.points[probe].at <= moment {
                begin = probe + 1;
                probe += step;
            } else {
                end = probe;
                probe = probe.saturating_sub(step);
            }
            step *= 2;
        }
        begin
    }

    /// Returns the index of the point closest to a time, if points are evenly spaced.
    fn expected(&self, moment: u64) -> usize {
        let end = self.points.len() - 1;
        let (first, last) = (self.points[0].at, self.points[end].at);
        let part = (moment - first) as f64 / (last - first) as f64;
        (part * end as f64 + 0.5) as usize
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
