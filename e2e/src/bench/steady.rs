//! `steady` and `steady-stress`: a constant load from zero, and how calmly the count of pods gets to what it needs.
//!
//! A load that needs five pods is put on a function at zero. While the first pods start a backlog grows, which has to be
//! drained without asking for pods that come too late, and without falling below what the load needs afterwards.

mod load;
mod verdict;

use std::time::Duration;

use anyhow::{Result, ensure};
use rouse_crds::names;
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use super::{
    Figures,
    busy::Busy,
    figures::percentile,
    watched::{Look, Watched, missed, most},
};
use crate::{
    Cluster,
    workspace::{TIMEOUT, Workspace},
};
use load::{Load, Requests, Sample};
use verdict::{Count, Drained, direction_changes, needed};

/// Requests a second.
const RATE: u32 = 50;
/// How long one request is in a pod.
const SERVICE: Duration = Duration::from_millis(300);
const LIMIT: u32 = 5;
/// Requests in a pod that the autoscaler aims at: 70 % of the limit, the default.
const TARGET: f64 = 3.5;
/// How long pods take until they listen, in each run of `steady`, in seconds.
const DELAYS: [u64; 2] = [0, 20];
/// What is measured, from the first ready pod on.
const SPAN: Duration = Duration::from_secs(300);
/// The same while both cores are loaded.
const STRESS_SPAN: Duration = Duration::from_secs(120);
/// A request that takes no longer has not waited in a backlog.
const DRAINED: Drained =
    Drained { within: SERVICE.saturating_add(Duration::from_millis(500)), calm: Duration::from_secs(1) };
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The time in which the autoscaler means to drain a backlog (`decide/backlog.rs`): a start time, and never less than this.
fn drain_time(start: Duration) -> Duration {
    start.max(Duration::from_secs(3))
}

/// What was seen of one run.
#[derive(Debug)]
struct Seen {
    most: i32,
    writes: usize,
    missed: i64,
    failures: u32,
    /// From the first write that wanted a pod to the first ready pod.
    start: Duration,
    /// From the first ready pod to the end of the backlog; all of the span if there was no end.
    drained: Duration,
    /// Of all requests due after the end of the backlog; of all there were if there was no end.
    after: Vec<Duration>,
    direction_changes: usize,
    /// The most that the client was late with a request.
    late: Duration,
}

impl Seen {
    fn ratio(&self) -> f64 {
        f64::from(self.most) / needed(RATE, SERVICE, TARGET)
    }

    fn p99(&self) -> f64 {
        percentile(&self.after, 99).as_secs_f64() * 1000.0
    }

    fn of(looks: &[Look], requests: &Requests, started: Instant, ready: Duration, span: Duration) -> Self {
        let at = |look: &Look| look.at.saturating_duration_since(started);
        let counts: Vec<_> = looks.iter().map(|look| Count { at: at(look), wanted: look.wanted }).collect();
        let asked = counts.iter().find(|count| count.wanted > 0).map_or(ready, |count| count.at);
        let drained = DRAINED.since(&requests.samples, ready);
        if drained.is_none() {
            eprintln!("    the backlog was never drained");
        }
        let from = drained.unwrap_or_default();
        Self {
            most: most(looks),
            writes: looks.windows(2).filter(|pair| pair[0].wanted != pair[1].wanted).count(),
            missed: missed(looks),
            failures: requests.failed(),
            start: ready.saturating_sub(asked),
            drained: drained.map_or(span, |at| at - ready),
            after: requests.samples.iter().filter(|s| s.due >= from).map(Sample::took).collect(),
            direction_changes: direction_changes(&counts, ready, ready + span),
            late: requests.late,
        }
    }
}

/// `steady`.
pub(super) async fn run(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    let workspace = Workspace::new(cluster, &format!("bench-steady-{}", std::process::id())).await?;
    let mut all = vec![];
    for delay in DELAYS {
        let seen = play(&workspace, &format!("delay{delay}"), Duration::from_secs(delay), SPAN).await?;
        let name = |figure: &str| format!("steady.delay{delay}.{figure}");
        figures.note(name("most_pods"), f64::from(seen.most), "pods");
        figures.note(name("writes"), seen.writes as f64, "writes");
        figures.note(name("failures"), f64::from(seen.failures), "requests");
        figures.note(name("start_s"), seen.start.as_secs_f64(), "s");
        let bar = 2.0 * drain_time(seen.start).as_secs_f64();
        figures.bar(name("drained_s"), seen.drained.as_secs_f64(), "s", bar);
        figures.note(name("p99_ms"), seen.p99(), "ms");
        figures.note(name("direction_changes"), seen.direction_changes as f64, "changes");
        figures.note(name("client_late_ms.max"), seen.late.as_secs_f64() * 1000.0, "ms");
        all.push(seen);
    }
    let worst = |of: fn(&Seen) -> f64| all.iter().map(of).fold(0.0, f64::max);
    figures.bar("steady.most_pods_ratio", worst(Seen::ratio), "×", 1.6);
    figures.bar("steady.failures", all.iter().map(|s| f64::from(s.failures)).sum(), "requests", 0.0);
    // Delays differ in what they allow: the worse is the one that took more of it.
    let by = |seen: &&Seen| seen.drained.div_duration_f64(drain_time(seen.start));
    if let Some(slowest) = all.iter().max_by(|a, b| by(a).total_cmp(&by(b))) {
        let bar = 2.0 * drain_time(slowest.start).as_secs_f64();
        figures.bar("steady.drained_s", slowest.drained.as_secs_f64(), "s", bar);
    }
    figures.bar("steady.p99_ms", worst(Seen::p99), "ms", 1000.0);
    figures.bar("steady.direction_changes", worst(|s| s.direction_changes as f64), "changes", 2.0);
    // With any of these the counts above may be too low.
    figures.bar("steady.missed_writes", worst(|s| s.missed as f64), "writes", 0.0);
    workspace.delete_namespace().await
}

/// `steady-stress`.
pub(super) async fn stress(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    let workspace = Workspace::new(cluster, &format!("bench-stress-{}", std::process::id())).await?;
    let busy = Busy::start(STRESS_SPAN + TIMEOUT * 5);
    let seen = play(&workspace, "stress", Duration::ZERO, STRESS_SPAN).await?;
    ensure!(busy.stop(), "the load on the cores ended before the run did");
    figures.bar("steady.stress.most_pods_ratio", seen.ratio(), "×", 2.0);
    figures.bar("steady.stress.failures", f64::from(seen.failures), "requests", 0.0);
    figures.note("steady.stress.most_pods", f64::from(seen.most), "pods");
    figures.note("steady.stress.writes", seen.writes as f64, "writes");
    figures.note("steady.stress.start_s", seen.start.as_secs_f64(), "s");
    figures.note("steady.stress.drained_s", seen.drained.as_secs_f64(), "s");
    figures.note("steady.stress.p99_ms", seen.p99(), "ms");
    figures.note("steady.stress.direction_changes", seen.direction_changes as f64, "changes");
    figures.note("steady.stress.client_late_ms.max", seen.late.as_secs_f64() * 1000.0, "ms");
    figures.bar("steady.stress.missed_writes", seen.missed as f64, "writes", 0.0);
    workspace.delete_namespace().await
}

/// A function that has never had a pod, so that nothing is known of its starts or its requests.
fn spec(delay: Duration) -> Value {
    json!({
        "env": [{"name": "HELLO_START_DELAY_MS", "value": delay.as_millis().to_string()}],
        "scaling": {"initial": 0, "concurrencyLimit": LIMIT, "idleTimeout": "5s", "stableWindow": "6s"},
        // Most of what the chart allows a namespace: nothing is to be rejected while pods start.
        "queue": {"maxRequests": 8000, "maxBytes": "64Mi"},
        // Below the client's own limit, so that a request that times out gets its response.
        "timeouts": {"coldStart": "120s"},
    })
}

/// Puts the load on a new function at zero, until `span` after its first ready pod, and waits for every response.
async fn play(workspace: &Workspace, name: &str, delay: Duration, span: Duration) -> Result<Seen> {
    workspace.ready(name, spec(delay)).await?;
    workspace.without_pods(name).await?;
    let watched = Watched::start(workspace, names::revision_name(name, 1)).await?;
    ensure!(most(&watched.looks()) == 0, "{name} is not at zero");
    let path = format!("/?sleep_ms={}", SERVICE.as_millis());
    let load = Load::start(workspace, name, &path, RATE);
    let started = load.started;
    eprintln!("    pods of {name} wanted/ready(requests without a response) every {} s:", LOOK_EVERY.as_secs());
    let (mut timeline, mut ticks) = (Timeline::default(), interval(LOOK_EVERY));
    loop {
        let now = ticks.tick().await;
        ensure!(!watched.is_over(), "the Deployment of {name} was deleted");
        let looks = watched.looks();
        timeline.add(now.saturating_duration_since(started), looks.last(), load.pending());
        match looks.iter().find(|look| look.ready > 0) {
            Some(ready) if now.saturating_duration_since(ready.at) > span => break,
            None => ensure!(started.elapsed() < delay + TIMEOUT, "no pod of {name} was ready in time"),
            Some(_) => {}
        }
    }
    timeline.end();
    let requests = load.stop().await?;
    requests.tell_failures();
    let looks = watched.stop(workspace).await?;
    // An activator may know of a pod before the Deployment does.
    let by_status = looks.iter().find(|look| look.ready > 0).map(|look| look.at.saturating_duration_since(started));
    let by_response = requests.samples.iter().filter(|s| s.succeeded).map(|s| s.end).min();
    let ready = by_status.into_iter().chain(by_response).min().unwrap_or_default();
    workspace.delete(name).await?;
    Ok(Seen::of(&looks, &requests, started, ready, span))
}

/// The counts over time, ten to a line.
#[derive(Debug, Default)]
struct Timeline {
    line: Vec<String>,
}

impl Timeline {
    fn add(&mut self, since: Duration, look: Option<&Look>, pending: usize) {
        let (wanted, ready) = look.map_or((0, 0), |look| (look.wanted, look.ready));
        if self.line.is_empty() {
            self.line.push(format!("{:>4} s ", since.as_secs()));
        }
        self.line.push(format!("{wanted}/{ready}({pending})"));
        if self.line.len() > 10 {
            self.end();
        }
    }

    fn end(&mut self) {
        if !self.line.is_empty() {
            eprintln!("    {}", std::mem::take(&mut self.line).join(" "));
        }
    }
}

#[cfg(test)]
mod tests {
    use rouse_crds::FunctionSpec;

    use super::*;

    #[test]
    fn the_load_needs_five_pods_and_its_function_is_one() {
        assert_eq!(needed(RATE, SERVICE, TARGET), 5.0);
        let mut whole = spec(Duration::from_secs(20));
        whole["image"] = json!("hello");
        let spec: FunctionSpec = serde_json::from_value(whole).unwrap();
        let scaling = spec.scaling();
        assert_eq!((scaling.target(), scaling.concurrency_limit(), scaling.initial()), (TARGET, Some(LIMIT), 0));
        assert_eq!(spec.queue().max_requests(), 8000);
    }

    #[test]
    fn a_run_without_an_end_of_the_backlog_is_not_a_good_one() {
        let started = Instant::now();
        let look = |ms: u64, wanted, ready, generation| Look {
            at: started + Duration::from_millis(ms),
            wanted,
            ready,
            generation,
        };
        let looks =
            [look(0, 0, 0, 1), look(100, 10, 0, 2), look(500, 10, 1, 2), look(900, 5, 1, 4), look(950, 6, 1, 5)];
        let sample = |n: u64, took: u64| {
            let due = Duration::from_millis(20 * n);
            Sample { due, end: due + Duration::from_millis(took), succeeded: true }
        };
        let requests = |took: u64| {
            let mut requests = Requests::default();
            requests.samples.extend((0..500).map(|n| sample(n, if n < 100 { 2500 } else { took })));
            requests
        };
        let (ready, span) = (Duration::from_millis(500), Duration::from_secs(10));
        let seen = Seen::of(&looks, &requests(310), started, ready, span);
        assert_eq!((seen.most, seen.writes, seen.missed, seen.direction_changes), (10, 3, 1, 2));
        assert_eq!((seen.ratio(), seen.start), (2.0, Duration::from_millis(400)));
        // The last of those that waited ended at 4.48 s, 0.8 s after 3.68 s.
        assert_eq!(seen.drained, Duration::from_millis(3680 - 500));
        assert_eq!(seen.p99(), 310.0);
        let never = Seen::of(&looks, &requests(900), started, ready, span);
        assert_eq!((never.drained, never.p99(), never.after.len()), (span, 2500.0, 500));
    }

    #[test]
    fn a_backlog_has_the_time_that_pods_need() {
        for (start, time) in [(0, 2000), (300, 2000), (1500, 3000), (20_000, 40_000)] {
            assert_eq!(drain_time(Duration::from_millis(start)), Duration::from_millis(time), "{start} ms");
        }
    }
}
