//! Counters over time, and their average rates over the last so many seconds.

use std::time::Duration;

use crate::{Demand, ends::Ends};

/// The counters at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    /// Nanoseconds, enough for five hundred years.
    at: u64,
    request_us: u64,
    busy_us: u64,
    /// Arrivals that did not leave the queue without a pod. The only one that can go back.
    work: u64,
    completions: u64,
}

/// Points no closer together than a sixteenth of the panic window or a quarter of a second, over the stable window. With
/// the widest bounds that a Function can state points would number tens of thousands, so the count is capped as well: past
/// [`MAX_POINTS`] every second point goes, so that what is long ago is known in less detail.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    points: Ends<Point>,
    /// When the point before the newest was.
    before: Option<u64>,
}

const MAX_POINTS: usize = 512;

/// Frames come no more often.
const CLOSEST: Duration = Duration::from_millis(250);

/// Nothing is averaged over less, if the window is not shorter itself.
const SHORTEST: Duration = Duration::from_secs(1);

/// Average rates over a window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Average {
    /// Requests at once, in pods and in the queue.
    pub(crate) concurrency: f64,
    /// Requests at once in pods. Never more than `concurrency`.
    pub(crate) busy: f64,
    /// Requests per second that came and did not leave without a pod.
    pub(crate) rps: f64,
    /// Requests per second that ended in a pod.
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
    /// Notes the counters as of `now`. A moment before the latest one is taken as the latest one.
    pub(crate) fn record(&mut self, now: Duration, demand: &Demand, stable: Duration, panic: Duration) {
        let now = nanos(now);
        let point = Point::of(now, demand);
        let closest = nanos((panic / 16).min(CLOSEST));
        // The newest point moves along with time until it is far enough from the one before it.
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
        // One point older than the window stays, to measure from.
        let stable = nanos(stable);
        while self.points.len() > 2 && now.saturating_sub(self.points[1].at) >= stable {
            self.points.pop_front();
        }
        if self.points.len() > MAX_POINTS {
            self.thin();
        }
    }

    /// Takes every second point away, but not the newest.
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

    /// Forgets all but the newest point.
    pub(crate) fn keep_newest(&mut self) {
        let mut newest = Self::default();
        if let Some(point) = self.points.pop_back() {
            newest.points.push_back(point);
        }
        *self = newest;
    }

    /// Average over the last `window`, or over what is known where that is shorter, but over a second at least: what came within
    /// milliseconds says little of what is at once. The published autoscaler counts in seconds. Nothing known: zero.
    pub(crate) fn average(&self, window: Duration) -> Average {
        let (Some(first), Some(last)) = (self.points.front(), self.points.back()) else { return Average::default() };
        let from = last.at.saturating_sub(nanos(window)).max(first.at);
        if last.at == from {
            return Average::default();
        }
        let seconds = Duration::from_nanos(last.at - from).max(window.min(SHORTEST)).as_secs_f64();
        // The stable window mostly begins with the first point, which needs no search.
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

    /// The points around a moment that is not before the first point and is before the last, and how far it is from the one to
    /// the other: counters are taken to grow evenly between points.
    fn at(&self, moment: u64) -> (&Point, &Point, f64) {
        let next = self.after(moment);
        let (a, b) = (&self.points[next - 1], &self.points[next]);
        (a, b, (moment - a.at) as f64 / (b.at - a.at) as f64)
    }

    /// Index of the first point after a moment that is not before the first point and is before the last.
    ///
    /// It is looked for from where it is if points came evenly, in growing steps: what takes time is how many points are
    /// looked at, since none is in the processor's cache.
    fn after(&self, moment: u64) -> usize {
        // The point before `begin` is not after the moment, that at `end`, if there is one, is.
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

    /// Index of the point that is closest to such a moment, if points came evenly, as they do as a rule.
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
