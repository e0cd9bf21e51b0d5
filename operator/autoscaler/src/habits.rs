//! How long a function is usually idle, and when it pays to have a pod ready for its next call.
//!
//! After the *hybrid histogram policy* (Shahrad et al., "Serverless in the Wild", 2020): idle times are counted in bins of
//! a minute up to four hours. [`Habits::published`] cuts off the head and the tail as the paper does; [`Habits::paying`]
//! chooses the stretch of idle time in which pods pay most. Where nothing is said the fixed idle time-out is all there is;
//! the paper's time series forecast for what is beyond four hours is left out.

use std::{fmt, str::FromStr, time::Duration};

const BINS: usize = 240;

const BIN: Duration = Duration::from_secs(60);

/// Fewer idle times say nothing.
const FEWEST: u32 = 5;

/// Past so many, old ones are given half their weight, so that a new habit shows.
const MOST: u32 = 1000;

/// A pod has to be there before the call, so it is started so long before the first bin of the window.
const LEAD: Duration = Duration::from_secs(10);

/// Counts of idle times by their length. Half a kilobyte.
#[derive(Clone, PartialEq, Eq)]
pub struct Habits {
    bins: [u16; BINS],
    /// Idle times longer than all bins.
    beyond: u16,
}

/// A stretch of idle time, counted from the last request, in which a pod is kept: from `from` until before `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When a pod is started, or not yet taken away.
    pub from: Duration,
    /// When it goes.
    pub until: Duration,
}

impl Default for Habits {
    fn default() -> Self {
        Self { bins: [0; BINS], beyond: 0 }
    }
}

impl Habits {
    /// Counts an idle time that a call has ended.
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

    /// How many idle times are counted.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.within() + u32::from(self.beyond)
    }

    fn within(&self) -> u32 {
        self.bins.iter().map(|count| u32::from(*count)).sum()
    }

    /// The window of the paper: from the 5th percentile, rounded down to a bin and a tenth earlier, to the 99th, rounded
    /// up and a tenth later. `None` if the histogram is not representative: too few, most are beyond it, or they are
    /// spread evenly (the coefficient of variation of the bins is not above 2).
    #[must_use]
    pub fn published(&self) -> Option<Window> {
        let within = self.within();
        if within < FEWEST || u32::from(self.beyond) >= within {
            return None;
        }
        let mean = f64::from(within) / BINS as f64;
        let variance = self.bins.iter().map(|c| (f64::from(*c) - mean).powi(2)).sum::<f64>() / BINS as f64;
        if variance.sqrt() / mean <= 2.0 {
            return None;
        }
        let (head, tail) = (self.percentile(within, 5)?, self.percentile(within, 99)?);
        Some(Window { from: edge(head) * 9 / 10, until: edge(tail + 1) * 11 / 10 })
    }

    /// The bin that holds this percentile of the counts in bins.
    fn percentile(&self, within: u32, percent: u32) -> Option<usize> {
        let rank = (within * percent).div_ceil(100).max(1);
        let mut seen = 0;
        self.bins.iter().position(|count| {
            seen += u32::from(*count);
            seen >= rank
        })
    }

    /// The window that pays most, if a start that a caller has to wait for is worth `price` of a pod that waits for nobody.
    ///
    /// A bin gains a price for each idle time that ended in it and costs its length for each that went on (half of it for
    /// those that ended), so the best window is the stretch of bins with the largest sum. Idle time up to `idle_timeout` is
    /// covered anyway and costs nothing more. `None`: none pays, or too little is known.
    #[must_use]
    pub fn paying(&self, price: Duration, idle_timeout: Duration) -> Option<Window> {
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
        // The last of all idle times always pays: nothing is known to go on after it. One of chance must not.
        let known: u32 = self.bins[from..until].iter().map(|count| u32::from(*count)).sum();
        (known >= FEWEST).then(|| Window { from: edge(from).saturating_sub(LEAD), until: edge(until) })
    }
}

/// Where a bin begins.
fn edge(bin: usize) -> Duration {
    BIN * u32::try_from(bin).unwrap_or(u32::MAX)
}

/// `1:` and, for each run of bins, how many are skipped and the counts: `1:4.12,3;20.1;=7`, with 7 beyond the bins. Two
/// kilobytes at the most.
impl fmt::Display for Habits {
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

impl fmt::Debug for Habits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Habits({self})")
    }
}

/// What was kept is not what this version writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotHabits;

impl fmt::Display for NotHabits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a record of idle times")
    }
}

impl std::error::Error for NotHabits {}

impl FromStr for Habits {
    type Err = NotHabits;

    fn from_str(text: &str) -> Result<Self, NotHabits> {
        let (runs, beyond) = text.strip_prefix("1:").and_then(|t| t.rsplit_once('=')).ok_or(NotHabits)?;
        let mut habits = Self { beyond: number(beyond)?, ..Self::default() };
        let mut bin = 0usize;
        for run in runs.split_terminator(';') {
            let (skipped, counts) = run.split_once('.').ok_or(NotHabits)?;
            bin += usize::from(number(skipped)?);
            for count in counts.split(',') {
                *habits.bins.get_mut(bin).ok_or(NotHabits)? = number(count)?;
                bin += 1;
            }
        }
        // More than is ever counted was not written by this.
        if habits.total() > MOST { Err(NotHabits) } else { Ok(habits) }
    }
}

fn number(text: &str) -> Result<u16, NotHabits> {
    text.parse().map_err(|_| NotHabits)
}

#[cfg(test)]
mod tests;
