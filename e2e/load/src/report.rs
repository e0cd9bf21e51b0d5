//! What a client is to do, and what came of it.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

/// Clock ticks of `/proc/<pid>/stat` in a second; Linux shows user space this number whatever its own is.
const TICKS_PER_SECOND: f64 = 100.0;

/// What both clients are told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Plan {
    /// What is measured.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// The `Host` of the requests.
    #[arg(long)]
    pub(crate) host: String,
    /// Connections, all of them kept alive.
    #[arg(long)]
    pub(crate) connections: usize,
    /// Milliseconds of requests that are not measured.
    #[arg(long, default_value_t = 500)]
    pub(crate) warm_up: u64,
    /// Milliseconds of requests that are.
    #[arg(long)]
    pub(crate) measured: u64,
    /// Processes whose time on the processor counts as what is measured's.
    #[arg(long = "watch")]
    pub(crate) watched: Vec<u32>,
}

impl Plan {
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_millis(self.warm_up)
    }

    pub(crate) fn measured(&self) -> Duration {
        Duration::from_millis(self.measured)
    }

    /// The request, byte for byte.
    pub(crate) fn request(&self) -> Vec<u8> {
        format!("GET / HTTP/1.1\r\nHost: {}\r\nUser-Agent: rouse-load\r\nAccept: */*\r\n\r\n", self.host).into_bytes()
    }

    /// Seconds that the watched processes have been on a processor since they began.
    pub(crate) fn cpu(&self) -> Result<f64> {
        self.watched.iter().try_fold(0.0, |sum, pid| {
            let path = format!("/proc/{pid}/stat");
            let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            let ticks = ticks(&stat).with_context(|| format!("{path} is not understood"))?;
            Ok(sum + ticks as f64 / TICKS_PER_SECOND)
        })
    }
}

/// utime + stime. The second field may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
    // Fields 14 and 15 of the file; the first one here is field 3.
    let user: u64 = fields.nth(11)?.parse().ok()?;
    Some(user + fields.next()?.parse::<u64>().ok()?)
}

/// What came of a phase.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Answers with 200 within the phase.
    pub(crate) answers: usize,
    /// Other answers, connections that were closed or refused, and requests that were never answered.
    pub(crate) failures: usize,
    /// Connections that the other side closed in good order between two requests.
    pub(crate) reconnects: usize,
    /// Length of the phase.
    pub(crate) seconds: f64,
    /// Time on a processor of the watched processes.
    pub(crate) cpu_seconds: f64,
    /// Latencies in microseconds, over all answers.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// The first failure, for a person.
    pub(crate) first_failure: Option<String>,
}

/// What a client counts as it goes.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Nanoseconds from the sending (or from when it was due) to the last byte.
    pub(crate) latencies: Vec<u64>,
    pub(crate) failures: usize,
    pub(crate) reconnects: usize,
    pub(crate) first_failure: Option<String>,
}

impl Tally {
    pub(crate) fn failed(&mut self, why: impl FnOnce() -> String) {
        self.failures += 1;
        self.first_failure.get_or_insert_with(why);
    }

    pub(crate) fn report(mut self, took: Duration, cpu_seconds: f64) -> Report {
        self.latencies.sort_unstable();
        let per_mille = |n| percentile(&self.latencies, n) as f64 / 1000.0;
        Report {
            answers: self.latencies.len(),
            failures: self.failures,
            reconnects: self.reconnects,
            seconds: took.as_secs_f64(),
            cpu_seconds,
            p50_us: per_mille(500),
            p99_us: per_mille(990),
            p999_us: per_mille(999),
            max_us: per_mille(1000),
            first_failure: self.first_failure,
        }
    }
}

impl Report {
    pub(crate) fn print(&self) -> Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// The smallest sample that so many of a thousand are not above; zero if there is none.
fn percentile(sorted: &[u64], per_mille: usize) -> u64 {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<u64> = (1..=2000).collect();
        assert_eq!([500, 990, 999, 1000].map(|n| percentile(&samples, n)), [1000, 1980, 1998, 2000]);
        assert_eq!((percentile(&samples[..1], 999), percentile(&[], 500)), (1, 0));
    }

    #[test]
    fn both_kinds_of_time_are_added_up() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 500 60 7 8 20 0 1 0 4242 9 9";
        assert_eq!(ticks(stat), Some(560));
        assert_eq!(ticks("7 (x"), None);
    }

    #[test]
    fn failures_are_counted_beside_the_latencies() {
        let mut tally = Tally { latencies: vec![3000, 1000, 2000], ..Tally::default() };
        tally.failed(|| "first".to_owned());
        tally.failed(|| "second".to_owned());
        let report = tally.report(Duration::from_secs(2), 0.5);
        assert_eq!((report.answers, report.failures, report.p50_us, report.max_us), (3, 2, 2.0, 3.0));
        assert_eq!(report.first_failure.as_deref(), Some("first"));
    }
}
