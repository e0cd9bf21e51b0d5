//! Reader of the public Azure Functions trace of 2019: for each day, a file with the number of requests of each function per
//! minute, and optionally a file with durations.
//!
//! `invocations_per_function_md.anon.d01.csv`: `HashOwner,HashApp,HashFunction,Trigger,1,…,1440`.
//! `function_durations_percentiles.anon.d01.csv`: `HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum,`
//! `percentile_Average_0,…_1,…_25,…_50,…_75,…_99,…_100`, in milliseconds.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use rand::Rng as _;

use crate::{
    micros::{MICROS_PER_SECOND, Micros},
    random::{Purpose, log_normal, service, stream},
    request::{Arrival, Function},
};

const MINUTES: u32 = 1_440;

/// Maximum number of requests of a function per minute. Requests beyond it are dropped and counted: the few such functions
/// would exhaust memory and need more pods than the maximum of every policy.
const MOST_IN_A_MINUTE: u32 = 10_000;

/// Functions of the public trace.
#[derive(Debug)]
pub(crate) struct Azure {
    rows: Vec<Row>,
    hours: u32,
    seed: u64,
    /// Number of dropped requests.
    clipped: u64,
}

#[derive(Debug, Default)]
struct Row {
    kind: &'static str,
    /// Minutes with requests, in order, and their number.
    minutes: Vec<(u32, u32)>,
    /// Median duration in seconds and the standard deviation of its logarithm; generated where the trace has none.
    duration: Option<(f64, f64)>,
}

impl Azure {
    /// Reads the days of `hours`, and a random sample of at most `functions` functions.
    pub(crate) fn read(folder: &Path, functions: usize, hours: u32, seed: u64) -> Result<Self> {
        let days: Vec<_> = (1..=hours.div_ceil(24)).collect();
        let file = |kind: &str, day: u32| folder.join(format!("{kind}.anon.d{day:02}.csv"));
        // Two passes: the sample has to be known before counts are stored, since all counts do not fit into memory.
        let mut sample = BTreeSet::new();
        for day in &days {
            lines(&file("invocations_per_function_md", *day), |cells| {
                let name = name(cells)?;
                sample.insert((hash(seed, &name), name));
                if sample.len() > functions {
                    sample.pop_last();
                }
                Ok(())
            })?;
        }
        ensure!(!sample.is_empty(), "no function found in {}", folder.display());
        let mut found: HashMap<String, usize> = HashMap::new();
        let mut rows = Vec::new();
        for (index, (_, name)) in sample.into_iter().enumerate() {
            found.insert(name, index);
            rows.push(Row::default());
        }
        let mut clipped = 0;
        for day in &days {
            lines(&file("invocations_per_function_md", *day), |cells| {
                let Some(index) = found.get(&name(cells)?) else { return Ok(()) };
                ensure!(cells.len() == 4 + MINUTES as usize, "there are {} columns, not 1444", cells.len());
                rows[*index].kind = kind(cells[3]);
                for (minute, cell) in (0..).zip(&cells[4..]) {
                    let count: u32 = cell.trim().parse().with_context(|| format!("`{cell}` is not a count"))?;
                    clipped += u64::from(count.saturating_sub(MOST_IN_A_MINUTE));
                    if count > 0 {
                        rows[*index].minutes.push(((day - 1) * MINUTES + minute, count.min(MOST_IN_A_MINUTE)));
                    }
                }
                Ok(())
            })?;
            let durations = file("function_durations_percentiles", *day);
            if durations.exists() {
                lines(&durations, |cells| {
                    if let Some(index) = found.get(&name(cells)?) {
                        rows[*index].duration = Some(duration(cells)?);
                    }
                    Ok(())
                })?;
            }
        }
        for row in &mut rows {
            // A function may have several lines in a file.
            row.minutes.sort_unstable();
        }
        Ok(Self { rows, hours, seed, clipped })
    }

    pub(crate) fn functions(&self) -> Vec<Function> {
        let of = |(index, row): (usize, &Row)| {
            let random = &mut stream(self.seed, index, Purpose::Profile);
            Function {
                index,
                kind: row.kind,
                limit: [1, 10, 100][random.random_range(0..3)],
                start: log_normal(random, 0.4, 0.6).clamp(0.15, 30.0),
                expected: row.minutes.iter().map(|(_, count)| f64::from(*count)).sum(),
            }
        };
        self.rows.iter().enumerate().map(of).collect()
    }

    /// Returns the requests of a function, at random times within their minutes.
    pub(crate) fn requests(&self, function: &Function) -> Vec<Arrival> {
        let row = &self.rows[function.index];
        let random = &mut stream(self.seed, function.index, Purpose::Requests);
        let (median, spread) = row.duration.unwrap_or_else(|| (log_normal(random, (-0.38f64).exp(), 2.36), 0.5));
        let median = median.clamp(0.001, 600.0);
        let mut requests = Vec::new();
        for (minute, count) in row.minutes.iter().take_while(|(minute, _)| *minute < self.hours * 60) {
            let begin = f64::from(*minute) * 60.0;
            for _ in 0..*count {
                let at = ((begin + random.random_range(0.0..60.0)) * MICROS_PER_SECOND) as Micros;
                requests.push(Arrival { at, service: service(random, median, spread) });
            }
        }
        requests.sort_by_key(|arrival| arrival.at);
        requests
    }

    pub(crate) fn note(&self) -> Option<String> {
        (self.clipped > 0).then(|| {
            format!("{} requests beyond {MOST_IN_A_MINUTE} per minute of one function were dropped", self.clipped)
        })
    }
}

/// Invokes `each` with the cells of every line after the header.
fn lines(path: &PathBuf, mut each: impl FnMut(&[&str]) -> Result<()>) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if number == 1 || line.trim().is_empty() {
            continue;
        }
        let cells: Vec<_> = line.split(',').collect();
        each(&cells).with_context(|| format!("{}, line {number}", path.display()))?;
    }
    Ok(())
}

/// Returns the identity of a function across files.
fn name(cells: &[&str]) -> Result<String> {
    let [owner, app, function, _, ..] = cells else { bail!("there are only {} columns", cells.len()) };
    Ok(format!("{owner}/{app}/{function}"))
}

fn kind(trigger: &str) -> &'static str {
    match trigger.trim() {
        "http" => "http",
        "timer" => "timer",
        "event" => "event",
        "queue" => "queue",
        "storage" => "storage",
        "orchestration" => "orchestration",
        _ => "others",
    }
}

/// Returns the log-normal distribution with the median and the 99th percentile of a line.
fn duration(cells: &[&str]) -> Result<(f64, f64)> {
    let cell = |index: usize| -> Result<f64> {
        let text = cells.get(index).with_context(|| format!("there are only {} columns", cells.len()))?;
        let value: f64 = text.trim().parse().with_context(|| format!("`{text}` is not a number"))?;
        ensure!(value.is_finite(), "`{text}` is not a number");
        // Values that were not measured are zero or negative.
        Ok((value / 1_000.0).max(0.001))
    };
    let (median, high) = (cell(10)?, cell(12)?);
    Ok((median, ((high / median).ln() / 2.326).clamp(0.0, 2.0)))
}

/// FNV-1a: a sample must be the same with every version of the standard library.
fn hash(seed: u64, name: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A function, its trigger, and its minutes with requests.
    type Line<'a> = (&'a str, &'a str, &'a [(u32, u32)]);

    /// Formats a day as the trace does.
    fn day(functions: &[Line<'_>]) -> String {
        let head: Vec<_> = (1..=MINUTES).map(|m| m.to_string()).collect();
        let mut text = format!("HashOwner,HashApp,HashFunction,Trigger,{}\n", head.join(","));
        for (name, trigger, minutes) in functions {
            let count = |m| minutes.iter().find(|(at, _)| *at == m).map_or(0, |(_, count)| *count).to_string();
            let cells: Vec<_> = (0..MINUTES).map(count).collect();
            text += &format!("o,a,{name},{trigger},{}\n", cells.join(","));
        }
        text
    }

    fn folder(files: &[(&str, String)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const FIRST: &str = "invocations_per_function_md.anon.d01.csv";
    const SECOND: &str = "invocations_per_function_md.anon.d02.csv";
    const DURATIONS: &str = "function_durations_percentiles.anon.d01.csv";

    #[test]
    fn counts_become_requests_in_their_minutes() {
        let durations = "HashOwner,HashApp,HashFunction,Average,Count,Minimum,Maximum,p0,p1,p25,p50,p75,p99,p100\n\
                         o,a,f,250,3,100,900,100,100,150,200,300,200,900\n";
        let folder = folder(&[
            (FIRST, day(&[("f", "timer", &[(0, 2), (1439, 1)])])),
            (SECOND, day(&[("f", "timer", &[(1, 3)])])),
            (DURATIONS, durations.to_owned()),
        ]);
        let trace = Azure::read(folder.path(), 10, 48, 1).unwrap();
        let functions = trace.functions();
        assert_eq!((functions.len(), functions[0].kind, functions[0].expected), (1, "timer", 6.0));
        let requests = trace.requests(&functions[0]);
        let minutes: Vec<_> = requests.iter().map(|c| c.at / 60_000_000).collect();
        assert_eq!(minutes, [0, 0, 1439, 1441, 1441, 1441]);
        // Median and 99th percentile are equal, so there is no spread.
        assert!(requests.iter().all(|c| c.service.abs_diff(200_000) <= 1), "{requests:?}");
        assert_eq!(requests, trace.requests(&functions[0]));
        assert_eq!(trace.note(), None);
    }

    #[test]
    fn policies_run_on_the_trace() {
        let every_minute: Vec<_> = (0..MINUTES).map(|minute| (minute, 1)).collect();
        let folder = folder(&[(FIRST, day(&[("often", "http", &every_minute), ("once", "queue", &[(700, 1)])]))]);
        let trace = crate::trace::Trace::Azure(Azure::read(folder.path(), 10, 24, 1).unwrap());
        let policies = crate::compare::tests::policies("keep:1m,keep:20m");
        let summaries = crate::compare::compare(&trace, &policies, 24, 1, 2).unwrap();
        assert_eq!((summaries[0].requests, summaries[1].requests), (1_441, 1_441));
        // Gaps of one to two minutes are bridged by a keep-alive of twenty minutes and not by one of one minute.
        assert!(summaries[0].cold_ratio_p50 > 0.1, "{summaries:?}");
        assert!(summaries[1].cold_ratio_p50 < 0.1, "{summaries:?}");
        assert!(summaries[0].wasted_pod_s < summaries[1].wasted_pod_s);
    }

    #[test]
    fn hours_may_end_within_a_day() {
        let folder = folder(&[(FIRST, day(&[("f", "http", &[(59, 1), (60, 1)])]))]);
        let trace = Azure::read(folder.path(), 10, 1, 1).unwrap();
        assert_eq!(trace.requests(&trace.functions()[0]).len(), 1);
    }

    #[test]
    fn a_sample_depends_on_the_seed_alone() {
        let names: Vec<_> = (0..40).map(|i| format!("f{i}")).collect();
        let minutes: Vec<_> = (0..40).map(|i| [(i, 1)]).collect();
        let rows: Vec<_> = names.iter().zip(&minutes).map(|(n, m)| (n.as_str(), "http", &m[..])).collect();
        let folder = folder(&[(FIRST, day(&rows))]);
        let sample = |seed| {
            let trace = Azure::read(folder.path(), 5, 24, seed).unwrap();
            trace.rows.iter().map(|r| r.minutes[0].0).collect::<Vec<_>>()
        };
        assert_eq!(sample(1), sample(1));
        assert_eq!(sample(1).len(), 5);
        assert_ne!(sample(1), sample(2));
    }

    #[test]
    fn excess_requests_are_dropped_and_reported() {
        let folder = folder(&[(FIRST, day(&[("f", "queue", &[(3, 10_005)])]))]);
        let trace = Azure::read(folder.path(), 1, 24, 1).unwrap();
        assert_eq!(trace.requests(&trace.functions()[0]).len(), 10_000);
        assert!(trace.note().unwrap().starts_with("5 requests"));
    }

    #[test]
    fn errors_name_the_line() {
        let said = |text: String| {
            let folder = folder(&[(FIRST, text)]);
            format!("{:#}", Azure::read(folder.path(), 10, 24, 1).unwrap_err())
        };
        let good = day(&[("f", "http", &[(3, 1)])]);
        assert!(said(good.replace(",1,0", ",x,0")).contains("line 2: `x` is not a count"));
        assert!(said(format!("{good}o,a\n")).contains("line 3: there are only 2 columns"));
        assert!(said(format!("{good}o,a,g,http,1,2\n")).contains("line 3: there are 6 columns"));
        assert!(said(String::new()).contains("no function found"));
        let nowhere = Azure::read(Path::new("/nowhere"), 10, 24, 1).unwrap_err();
        assert!(format!("{nowhere:#}").contains("cannot open /nowhere/invocations"));
    }
}
