//! `steady` and `steady-stress`: a constant load from zero, and how the replica count settles.
//!
//! A Function at zero receives a load that needs five pods. While the first pods start, a backlog grows. It has to be
//! drained without pods that would be ready too late, and without a count below the need of the load afterwards.

mod analysis;
mod load;

use std::time::Duration;

use anyhow::{Result, ensure};
use rouse_crds::names;
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use super::{
    Figures,
    busy::Busy,
    deployment_watch::{DeploymentWatch, Observation, max_replicas, missed},
    figures::percentile,
};
use crate::{
    Cluster,
    workspace::{TIMEOUT, Workspace},
};
use analysis::{BacklogEnd, ReplicaCount, direction_changes, needed};
use load::{Load, Requests, Sample};

/// Requests a second.
const RATE: u32 = 50;
/// In-pod time of a request.
const SERVICE: Duration = Duration::from_millis(300);
const LIMIT: u32 = 5;
/// Target concurrency of a pod: 70 % of the limit, the default.
const TARGET: f64 = 3.5;
/// Start delays of the pods in the runs of `steady`, in seconds.
const DELAYS: [u64; 2] = [0, 20];
/// Measured time, from the first ready pod.
const SPAN: Duration = Duration::from_secs(300);
/// Measured time of `steady-stress`.
const STRESS_SPAN: Duration = Duration::from_secs(120);
/// Criteria for the end of the backlog.
const BACKLOG_END: BacklogEnd =
    BacklogEnd { within: SERVICE.saturating_add(Duration::from_millis(500)), calm: Duration::from_secs(1) };
const PRINT_INTERVAL: Duration = Duration::from_secs(2);

/// Time in which the autoscaler intends to drain a backlog (`decide/backlog.rs`): the start time of a pod, at least 3 s.
fn drain_time(start: Duration) -> Duration {
    start.max(Duration::from_secs(3))
}

/// Results of one run.
#[derive(Debug)]
struct Summary {
    max_replicas: i32,
    writes: usize,
    missed: i64,
    failures: u32,
    /// From the first write with a pod to the first ready pod.
    start: Duration,
    /// From the first ready pod to the end of the backlog; the whole span if it did not end.
    drained: Duration,
    /// Latencies of the requests due after the end of the backlog; of all requests if it did not end.
    after: Vec<Duration>,
    direction_changes: usize,
    /// Longest delay of the client in sending a request.
    late: Duration,
}

impl Summary {
    fn ratio(&self) -> f64 {
        f64::from(self.max_replicas) / needed(RATE, SERVICE, TARGET)
    }

    fn p99(&self) -> f64 {
        percentile(&self.after, 99).as_secs_f64() * 1000.0
    }

    fn of(
        observations: &[Observation],
        requests: &Requests,
        started: Instant,
        ready: Duration,
        span: Duration,
    ) -> Self {
        let at = |observation: &Observation| observation.at.saturating_duration_since(started);
        let counts: Vec<_> = observations
            .iter()
            .map(|observation| ReplicaCount { at: at(observation), wanted: observation.wanted })
            .collect();
        let asked = counts.iter().find(|count| count.wanted > 0).map_or(ready, |count| count.at);
        let drained = BACKLOG_END.since(&requests.samples, ready);
        if drained.is_none() {
            eprintln!("    the backlog was never drained");
        }
        let from = drained.unwrap_or_default();
        Self {
            max_replicas: max_replicas(observations),
            writes: observations.windows(2).filter(|pair| pair[0].wanted != pair[1].wanted).count(),
            missed: missed(observations),
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
        let summary = run_load(&workspace, &format!("delay{delay}"), Duration::from_secs(delay), SPAN).await?;
        let name = |figure: &str| format!("steady.delay{delay}.{figure}");
        figures.note(name("most_pods"), f64::from(summary.max_replicas), "pods");
        figures.note(name("writes"), summary.writes as f64, "writes");
        figures.note(name("failures"), f64::from(summary.failures), "requests");
        figures.note(name("start_s"), summary.start.as_secs_f64(), "s");
        let bar = 2.0 * drain_time(summary.start).as_secs_f64();
        figures.bar(name("drained_s"), summary.drained.as_secs_f64(), "s", bar);
        figures.note(name("p99_ms"), summary.p99(), "ms");
        figures.note(name("direction_changes"), summary.direction_changes as f64, "changes");
        figures.note(name("client_late_ms.max"), summary.late.as_secs_f64() * 1000.0, "ms");
        all.push(summary);
    }
    let worst = |of: fn(&Summary) -> f64| all.iter().map(of).fold(0.0, f64::max);
    figures.bar("steady.most_pods_ratio", worst(Summary::ratio), "×", 1.6);
    figures.bar("steady.failures", all.iter().map(|s| f64::from(s.failures)).sum(), "requests", 0.0);
    // The bars differ by delay: the worst run is the one that used most of its bar.
    let by = |summary: &&Summary| summary.drained.div_duration_f64(drain_time(summary.start));
    if let Some(slowest) = all.iter().max_by(|a, b| by(a).total_cmp(&by(b))) {
        let bar = 2.0 * drain_time(slowest.start).as_secs_f64();
        figures.bar("steady.drained_s", slowest.drained.as_secs_f64(), "s", bar);
    }
    figures.bar("steady.p99_ms", worst(Summary::p99), "ms", 1000.0);
    figures.bar("steady.direction_changes", worst(|s| s.direction_changes as f64), "changes", 2.0);
    // With missed writes, the counts above may be too low.
    figures.bar("steady.missed_writes", worst(|s| s.missed as f64), "writes", 0.0);
    workspace.delete_namespace().await
}

/// `steady-stress`.
pub(super) async fn stress(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    let workspace = Workspace::new(cluster, &format!("bench-stress-{}", std::process::id())).await?;
    let busy = Busy::start(STRESS_SPAN + TIMEOUT * 5);
    let summary = run_load(&workspace, "stress", Duration::ZERO, STRESS_SPAN).await?;
    ensure!(busy.stop(), "the load on the cores ended before the run did");
    figures.bar("steady.stress.most_pods_ratio", summary.ratio(), "×", 2.0);
    figures.bar("steady.stress.failures", f64::from(summary.failures), "requests", 0.0);
    figures.note("steady.stress.most_pods", f64::from(summary.max_replicas), "pods");
    figures.note("steady.stress.writes", summary.writes as f64, "writes");
    figures.note("steady.stress.start_s", summary.start.as_secs_f64(), "s");
    figures.note("steady.stress.drained_s", summary.drained.as_secs_f64(), "s");
    figures.note("steady.stress.p99_ms", summary.p99(), "ms");
    figures.note("steady.stress.direction_changes", summary.direction_changes as f64, "changes");
    figures.note("steady.stress.client_late_ms.max", summary.late.as_secs_f64() * 1000.0, "ms");
    figures.bar("steady.stress.missed_writes", summary.missed as f64, "writes", 0.0);
    workspace.delete_namespace().await
}

/// Spec of a Function that never had a pod, so that nothing was learned.
fn spec(delay: Duration) -> Value {
    json!({
        "env": [{"name": "HELLO_START_DELAY_MS", "value": delay.as_millis().to_string()}],
        "scaling": {"initial": 0, "concurrencyLimit": LIMIT, "idleTimeout": "5s", "stableWindow": "6s"},
        // Most of the chart's cap for a namespace, so that no request is rejected while pods start.
        "queue": {"maxRequests": 8000, "maxBytes": "64Mi"},
        // Below the timeout of the client, so that a request that times out gets its response.
        "timeouts": {"coldStart": "120s"},
    })
}

/// Runs the load on a new Function at zero, until `span` after its first ready pod, and waits for every response.
async fn run_load(workspace: &Workspace, name: &str, delay: Duration, span: Duration) -> Result<Summary> {
    workspace.ready(name, spec(delay)).await?;
    workspace.without_pods(name).await?;
    let deployment_watch = DeploymentWatch::start(workspace, names::revision_name(name, 1)).await?;
    ensure!(max_replicas(&deployment_watch.observations()) == 0, "{name} is not at zero");
    let path = format!("/?sleep_ms={}", SERVICE.as_millis());
    let load = Load::start(workspace, name, &path, RATE);
    let started = load.started;
    eprintln!("    pods of {name} wanted/ready(requests without a response) every {} s:", PRINT_INTERVAL.as_secs());
    let (mut timeline, mut ticks) = (Timeline::default(), interval(PRINT_INTERVAL));
    loop {
        let now = ticks.tick().await;
        ensure!(!deployment_watch.is_over(), "the Deployment of {name} was deleted");
        let observations = deployment_watch.observations();
        timeline.add(now.saturating_duration_since(started), observations.last(), load.pending());
        match observations.iter().find(|observation| observation.ready > 0) {
            Some(ready) if now.saturating_duration_since(ready.at) > span => break,
            None => ensure!(started.elapsed() < delay + TIMEOUT, "no pod of {name} was ready in time"),
            Some(_) => {}
        }
    }
    timeline.end();
    let requests = load.stop().await?;
    requests.print_failures();
    let observations = deployment_watch.stop(workspace).await?;
    // An activator may detect a pod before the Deployment's status does.
    let by_status = observations
        .iter()
        .find(|observation| observation.ready > 0)
        .map(|observation| observation.at.saturating_duration_since(started));
    let by_response = requests.samples.iter().filter(|s| s.succeeded).map(|s| s.end).min();
    let ready = by_status.into_iter().chain(by_response).min().unwrap_or_default();
    workspace.delete(name).await?;
    Ok(Summary::of(&observations, &requests, started, ready, span))
}

/// Prints counts over time, ten per line.
#[derive(Debug, Default)]
struct Timeline {
    line: Vec<String>,
}

impl Timeline {
    fn add(&mut self, since: Duration, observation: Option<&Observation>, pending: usize) {
        let (wanted, ready) = observation.map_or((0, 0), |observation| (observation.wanted, observation.ready));
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
    fn the_load_needs_five_pods_and_the_spec_is_valid() {
        assert_eq!(needed(RATE, SERVICE, TARGET), 5.0);
        let mut whole = spec(Duration::from_secs(20));
        whole["image"] = json!("hello");
        let spec: FunctionSpec = serde_json::from_value(whole).unwrap();
        let scaling = spec.scaling();
        assert_eq!((scaling.target(), scaling.concurrency_limit(), scaling.initial()), (TARGET, Some(LIMIT), 0));
        assert_eq!(spec.queue().max_requests(), 8000);
    }

    #[test]
    fn a_backlog_that_never_ends_counts_for_the_whole_span() {
        let started = Instant::now();
        let observation = |ms: u64, wanted, ready, generation| Observation {
            at: started + Duration::from_millis(ms),
            wanted,
            ready,
            generation,
        };
        let observations = [
            observation(0, 0, 0, 1),
            observation(100, 10, 0, 2),
            observation(500, 10, 1, 2),
            observation(900, 5, 1, 4),
            observation(950, 6, 1, 5),
        ];
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
        let summary = Summary::of(&observations, &requests(310), started, ready, span);
        assert_eq!((summary.max_replicas, summary.writes, summary.missed, summary.direction_changes), (10, 3, 1, 2));
        assert_eq!((summary.ratio(), summary.start), (2.0, Duration::from_millis(400)));
        // The last request of the backlog ended at 4.48 s, 0.8 s after 3.68 s.
        assert_eq!(summary.drained, Duration::from_millis(3680 - 500));
        assert_eq!(summary.p99(), 310.0);
        let never = Summary::of(&observations, &requests(900), started, ready, span);
        assert_eq!((never.drained, never.p99(), never.after.len()), (span, 2500.0, 500));
    }

    #[test]
    fn the_drain_time_is_the_start_time_and_at_least_three_seconds() {
        for (start, time) in [(0, 3000), (300, 3000), (3500, 3500), (20_000, 20_000)] {
            assert_eq!(drain_time(Duration::from_millis(start)), Duration::from_millis(time), "{start} ms");
        }
    }
}
