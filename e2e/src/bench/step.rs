//! `step`: time from a load step, from five concurrent requests to fifty, until the desired count matches fifty.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use futures::future::join_all;
use rouse_crds::names;
use serde_json::json;
use tokio::{task::JoinHandle, time::Instant};

use super::{
    Figures,
    deployment_watch::{DeploymentWatch, max_replicas, missed},
    figures::percentile,
};
use crate::{
    Cluster,
    workspace::{TIMEOUT, Workspace, until},
};

/// Each takes about 20 s, most of it for the deletion of the pods.
const ROUNDS: usize = 20;
const BEFORE: usize = 5;
const AFTER: usize = 50;
const LIMIT: u32 = 5;
/// At 70 % of the limit.
const FEW: i32 = 2;
const MANY: i32 = 15;

/// Clients that send the next request after each response.
struct ClosedLoopClients {
    stop: Arc<AtomicBool>,
    failures: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl ClosedLoopClients {
    fn add(&mut self, workspace: &Workspace, name: &str, number: usize) {
        for _ in 0..number {
            let (workspace, name) = (workspace.clone(), name.to_owned());
            let (stop, failures) = (Arc::clone(&self.stop), Arc::clone(&self.failures));
            self.tasks.push(tokio::spawn(async move {
                // Bounds the load if a round does not end.
                let started = Instant::now();
                while !stop.load(Ordering::Relaxed) && started.elapsed() < TIMEOUT {
                    match workspace.get(&name, "/?sleep_ms=200").await {
                        Ok(response) if response.status.is_success() => {}
                        Ok(response) => {
                            failures.fetch_add(1, Ordering::Relaxed);
                            eprintln!("    {} {}", response.status, response.text());
                        }
                        Err(error) => {
                            failures.fetch_add(1, Ordering::Relaxed);
                            eprintln!("    {error:#}");
                        }
                    }
                }
            }));
        }
    }
}

pub(super) async fn run(cluster: &Cluster, figures: &mut Figures) -> Result<()> {
    let workspace = Workspace::new(cluster, &format!("bench-step-{}", std::process::id())).await?;
    let (mut reactions, mut nearly_all, mut ready) = (vec![], vec![], vec![]);
    let (mut most_pods, mut missed_writes) = (0, 0);
    let failures = Arc::<AtomicU64>::default();
    for round in 0..ROUNDS {
        // A new Function in each round, so that nothing was learned.
        let name = format!("step-{round}");
        let spec =
            json!({"scaling": {"concurrencyLimit": LIMIT, "idleTimeout": "5s", "stableWindow": "10s", "max": 30}});
        workspace.ready(&name, spec).await?;
        let mut clients = ClosedLoopClients { stop: Arc::default(), failures: Arc::clone(&failures), tasks: vec![] };
        // A watch, so that times are those of the writes.
        let deployment_watch = DeploymentWatch::start(&workspace, names::revision_name(&name, 1)).await?;
        clients.add(&workspace, &name, BEFORE);
        deployment_watch.reached(Instant::now(), FEW).await?;
        all_ready(&workspace, &name, FEW).await?;
        let started = Instant::now();
        clients.add(&workspace, &name, AFTER - BEFORE);
        // The concurrency is slightly lower than the number of clients, which pause between two requests.
        let (nearly, whole) =
            tokio::join!(deployment_watch.reached(started, MANY - 1), deployment_watch.reached(started, MANY));
        let (nearly, whole) = (reaction(nearly, started), reaction(whole, started));
        eprintln!("    round {round}: {} pods after {nearly:.2?}, {MANY} after {whole:.2?}", MANY - 1);
        reactions.push(whole);
        nearly_all.push(nearly);
        if whole < TIMEOUT {
            all_ready(&workspace, &name, MANY).await?;
        }
        ready.push(started.elapsed());
        clients.stop.store(true, Ordering::Relaxed);
        join_all(clients.tasks).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        let observations = deployment_watch.stop(&workspace).await?;
        (most_pods, missed_writes) =
            (most_pods.max(max_replicas(&observations)), missed_writes + missed(&observations));
        // Returns after the deletion of the last pod, so that no round affects the next.
        workspace.delete(&name).await?;
    }
    let seconds = |percent| percentile(&reactions, percent).as_secs_f64();
    figures.note("step.reaction_s.p50", seconds(50), "s");
    figures.bar("step.reaction_s.max", seconds(100), "s", 1.5);
    figures.note("step.one_pod_short_s.max", percentile(&nearly_all, 100).as_secs_f64(), "s");
    figures.note("step.ready_s.p50", percentile(&ready, 50).as_secs_f64(), "s");
    figures.note("step.most_pods", f64::from(most_pods), "pods");
    // With missed writes, a time above may be too late, or a count too low.
    figures.bar("step.missed_writes", missed_writes as f64, "writes", 0.0);
    figures.bar("step.failures", failures.load(Ordering::Relaxed) as f64, "requests", 0.0);
    workspace.delete_namespace().await
}

/// Returns the reaction time; [`TIMEOUT`] if the count was never reached, so that the other rounds still count.
fn reaction(reached: Result<Instant>, started: Instant) -> Duration {
    match reached {
        Ok(at) => at.duration_since(started),
        Err(error) => {
            eprintln!("    {error:#}");
            TIMEOUT
        }
    }
}

async fn all_ready(workspace: &Workspace, name: &str, pods: i32) -> Result<()> {
    until(&format!("{pods} ready pods of {name}"), TIMEOUT, || async {
        let count = workspace.pods(name).await?.iter().filter(|p| p.ready()).count();
        Ok((i32::try_from(count)? >= pods).then_some(()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_follow_from_the_target() {
        let target = f64::from(LIMIT) * 0.7;
        let pods = |requests: usize| (requests as f64 / target).ceil() as i32;
        assert_eq!((pods(BEFORE), pods(AFTER)), (FEW, MANY));
    }
}
