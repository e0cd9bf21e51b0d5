//! Parameters and results of the closed and the open loop.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;

/// Clock ticks per second in `/proc/<pid>/stat`; the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Parameters of a run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Plan {
    /// Address to measure.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// `Host` of the requests.
    #[arg(long)]
    pub(crate) host: String,
    /// Number of keep-alive connections.
    #[arg(long)]
    pub(crate) connections: usize,
    /// Duration of the warm-up, in milliseconds.
    #[arg(long, default_value_t = 500)]
    pub(crate) warm_up: u64,
    /// Duration of the measurement, in milliseconds.
    #[arg(long)]
    pub(crate) measured: u64,
    /// Processes whose CPU time is measured.
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

    /// Returns the request.
    pub(crate) fn request(&self) -> Vec<u8> {
        request(&self.host)
    }

    /// Returns the CPU time of the watched processes since their start.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        self.watched.iter().try_fold(Cpu::default(), |sum, pid| {
            let path = format!("/proc/{pid}/stat");
            let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            let cpu = Cpu::parse(&stat).with_context(|| format!("cannot parse {path}"))?;
            Ok(Cpu { user: sum.user + cpu.user, system: sum.system + cpu.system })
        })
    }
}

/// Returns a request to `host`.
pub(crate) fn request(host: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: rouse-load\r\nAccept: */*\r\n\r\n").into_bytes()
}

/// CPU time of all threads of a process, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cpu {
    /// In user space.
    pub(crate) user: f64,
    /// In the kernel.
    pub(crate) system: f64,
}

impl Cpu {
    /// Returns the time since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }

    /// Parses `/proc/<pid>/stat`. The second field may contain spaces and parentheses.
    fn parse(stat: &str) -> Option<Self> {
        let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
        let mut seconds = |skipped| Some(fields.nth(skipped)?.parse::<u64>().ok()? as f64 / TICKS_PER_SECOND);
        // Fields 14 and 15 of the file; the first one here is field 3.
        Some(Self { user: seconds(11)?, system: seconds(0)? })
    }
}

/// Results of the measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Responses with 200.
    pub(crate) responses: usize,
    /// Other responses, closed or refused connections, and requests without a response.
    pub(crate) failures: usize,
    /// Connections that the server closed between two requests.
    pub(crate) reconnects: usize,
    /// Duration of the measurement.
    pub(crate) seconds: f64,
    /// CPU time of the watched processes in user space.
    pub(crate) user_seconds: f64,
    /// CPU time of the watched processes in the kernel.
    pub(crate) system_seconds: f64,
    /// Latency percentiles of all responses, in microseconds.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// First failure.
    pub(crate) first_failure: Option<String>,
}

/// Counters of a run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Time from the sending of a request, or its due time, to the last byte of the response, in nanoseconds.
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

    pub(crate) fn report(mut self, took: Duration, cpu: Cpu) -> Report {
        self.latencies.sort_unstable();
        let per_mille = |n| percentile(&self.latencies, n) as f64 / 1000.0;
        Report {
            responses: self.latencies.len(),
            failures: self.failures,
            reconnects: self.reconnects,
            seconds: took.as_secs_f64(),
            user_seconds: cpu.user,
            system_seconds: cpu.system,
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

/// Returns the nearest-rank percentile, in per mille; zero without samples.
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
    fn user_and_system_time_are_parsed() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 500 60 7 8 20 0 1 0 4242 9 9";
        assert_eq!(Cpu::parse(stat), Some(Cpu { user: 5.0, system: 0.6 }));
        assert_eq!(Cpu::parse("7 (x"), None);
    }

    #[test]
    fn failures_are_counted_separately_from_latencies() {
        let mut tally = Tally { latencies: vec![3000, 1000, 2000], ..Tally::default() };
        tally.failed(|| "first".to_owned());
        tally.failed(|| "second".to_owned());
        let report = tally.report(Duration::from_secs(2), Cpu { user: 0.5, system: 0.25 });
        assert_eq!((report.responses, report.failures, report.p50_us, report.max_us), (3, 2, 2.0, 3.0));
        assert_eq!((report.user_seconds, report.system_seconds), (0.5, 0.25));
        assert_eq!(report.first_failure.as_deref(), Some("first"));
    }
}
