//! Idle-time histogram of a function, and the window of idle time in which a pre-warmed pod is worth its cost.
//!
//! Derived from the *hybrid histogram policy* (Shahrad et al., "Serverless in the Wild", 2020): idle times are counted in
//! bins of one minute, up to four hours. The paper cuts off the head and the tail of the histogram;
//! [`IdleHistogram::prewarm_window`] instead maximizes the benefit of a kept pod. Without a window, the fixed idle timeout
//! applies. The paper's time series forecast for idle times beyond four hours is not implemented.

use std::{fmt, str::FromStr, time::Duration};

const BINS: usize = 240;

const BIN: Duration = Duration::from_secs(60);

/// Minimum number of idle times for a window.
const FEWEST: u32 = 5;

/// Maximum number of idle times. Beyond it all counts are halved, so that recent idle times count more.
const MOST: u32 = 1000;

/// How long before the first bin of the window a pod is started, so that it is ready when the request arrives.
const LEAD: Duration = Duration::from_secs(10);

/// Counts of idle times by length. 482 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct IdleHistogram {
    bins: [u16; BINS],
    /// Idle times beyond the last bin.
    beyond: u16,
}

/// A half-open interval of idle time, counted from the last request, in which a pod is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Idle time at which a pod is started, or kept.
    pub from: Duration,
    /// Idle time at which the pod is removed.
    pub until: Duration,
}

impl Default for IdleHistogram {
    fn default() -> Self {
        Self { bins: [0; BINS], beyond: 0 }
    }
}

impl IdleHistogram {
    /// Records an idle time that a request has ended.
    pub fn record(&mut self, idle: Duration) {
        let bin = usize::try_from(idle.as_secs() / BIN.as_secs()).unwrap_or(usize::MAX);
        let count = self.bins.get_mut(bin).unwrap_or(&mut self.beyond);
        *count = count.saturating_add(1);
        if self.total() > MOST {
            for count in self.bins.iter_mut().chain([&mut self.beyond]) {
                *count /= 2;
            }
        }
    }

    /// Returns the number of recorded idle times.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.bins.iter().chain([&self.beyond]).map(|count| u32::from(*count)).sum()
    }

    /// Returns the window with the largest net benefit, where an avoided cold start is worth `price` of idle pod time.
    /// Returns `None` if no window has a benefit, or if too few idle times are recorded.
    ///
    /// A bin gains `price` for each idle time that ended in the bin. It costs its length for each longer idle time, and half
    /// its length for those that ended. The best window is the run of bins with the largest sum. Idle time up to
    /// `idle_timeout` costs nothing, since the idle timeout keeps a pod anyway.
    #[must_use]
    pub fn prewarm_window(&self, price: Duration, idle_timeout: Duration) -> Option<Window> {
        let mut left = self.total();
        if left < FEWEST {
            return None;
        }
        let mut best = (0.0, 0, 0);
        let (mut sum, mut from) = (0.0, 0);
        for (bin, count) in self.bins.iter().enumerate() {
            let count = u32::from(*count);
            let length = edge(bin + 1).saturating_sub(idle_timeout).min(BIN).as_secs_f64();
            if length > 0.0 {
                let cost = (f64::from(left) - f64::from(count) / 2.0) * length;
                sum += f64::from(count) * price.as_secs_f64() - cost;
            }
            left -= count;
            if sum <= 0.0 {
                (sum, from) = (0.0, bin + 1);
            } else if sum > best.0 {
                best = (sum, from, bin + 1);
            }
        }
        let (_, from, until) = best;
        // The longest recorded idle time always has a benefit, since none is known to continue after it. A single outlier
        // must not produce a window.
        let known: u32 = self.bins[from..until].iter().map(|count| u32::from(*count)).sum();
        (known >= FEWEST).then(|| Window { from: edge(from).saturating_sub(LEAD), until: edge(until) })
    }
}

/// Returns the lower bound of a bin.
fn edge(bin: usize) -> Duration {
    BIN * u32::try_from(bin).unwrap_or(u32::MAX)
}

/// Formats as `1:` and, for each run of non-empty bins, the number of skipped bins and the counts: `1:4.12,3;20.1;=7`, with
/// 7 idle times beyond the last bin. At most two kilobytes.
impl fmt::Display for IdleHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("1:")?;
        let (mut skipped, mut running) = (0, false);
        for count in self.bins {
            if count == 0 {
                if running {
                    f.write_str(";")?;
                }
                (skipped, running) = (skipped + 1, false);
            } else if running {
                write!(f, ",{count}")?;
            } else {
                write!(f, "{skipped}.{count}")?;
                (skipped, running) = (0, true);
            }
        }
        if running {
            f.write_str(";")?;
        }
        write!(f, "={}", self.beyond)
    }
}

impl fmt::Debug for IdleHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdleHistogram({self})")
    }
}

/// The error of parsing text that is not an encoded [`IdleHistogram`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdleHistogramError;

impl fmt::Display for ParseIdleHistogramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an idle-time histogram")
    }
}

impl std::error::Error for ParseIdleHistogramError {}

impl FromStr for IdleHistogram {
    type Err = ParseIdleHistogramError;

    fn from_str(text: &str) -> Result<Self, ParseIdleHistogramError> {
        let (runs, beyond) = text.strip_prefix("1:").and_then(|t| t.rsplit_once('=')).ok_or(ParseIdleHistogramError)?;
        let mut histogram = Self { beyond: number(beyond)?, ..Self::default() };
        let mut bin = 0usize;
        for run in runs.split_terminator(';') {
            let (skipped, counts) = run.split_once('.').ok_or(ParseIdleHistogramError)?;
            bin += usize::from(number(skipped)?);
            for count in counts.split(',') {
                *histogram.bins.get_mut(bin).ok_or(ParseIdleHistogramError)? = number(count)?;
                bin += 1;
            }
        }
        // `record` never counts more.
        if histogram.total() > MOST { Err(ParseIdleHistogramError) } else { Ok(histogram) }
    }
}

fn number(text: &str) -> Result<u16, ParseIdleHistogramError> {
    text.parse().map_err(|_| ParseIdleHistogramError)
}

#[cfg(test)]
mod tests;
