//! `step`: from five calls at once to fifty, and how long until as many pods are asked for as fifty need.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use anyhow::{Context as _, Result, bail};
use futures::{TryStreamExt as _, future::join_all};
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::{Figures, figures::percentile};
use crate::{
    Cluster,
    world::{PATIENCE, World, until},
};

const ROUNDS: usize = 5;
const BEFORE: usize = 5;
const AFTER: usize = 50;
const LIMIT: u32 = 5;
/// At 70 % of the limit.
const FEW: i32 = 2;
const MANY: i32 = 15;

/// Callers, each of whom calls again as soon as it was answered.
struct Callers {
    stop: Arc<AtomicBool>,
    failures: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Callers {
    fn add(&mut self, world: &World, name: &str, number: usize) {
        for _ in 0..number {
            let (world, name) = (world.clone(), name.to_owned());
            let (stop, failures) = (Arc::clone(&self.stop), Arc::clone(&self.failures));
            self.tasks.push(tokio::spawn(async move {
                // A round of the benchmark ends within a minute; should it not, this does.
                let begun = Instant::now();
                while !stop.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE {
                    match world.get(&name, "/?sleep_ms=200").await {
                        Ok(answer) if answer.status.is_success() => {}
                        Ok(answer) => {
                            failures.fetch_add(1, Ordering::Relaxed);
                            eprintln!("    {} {}", answer.status, answer.text());
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
    let world = World::new(cluster, &format!("bench-step-{}", std::process::id())).await?;
    let (mut reactions, mut nearly_all, mut ready, mut most) = (vec![], vec![], vec![], 0);
    let failures = Arc::<AtomicU64>::default();
    for round in 0..ROUNDS {
        // One that is new in each round: nothing is remembered of the one before.
        let name = format!("step-{round}");
        let spec =
            json!({"scaling": {"concurrencyLimit": LIMIT, "idleTimeout": "5s", "stableWindow": "10s", "max": 30}});
        world.ready(&name, spec).await?;
        let mut callers = Callers { stop: Arc::default(), failures: Arc::clone(&failures), tasks: vec![] };
        callers.add(&world, &name, BEFORE);
        reach(&world, &name, FEW).await?;
        all_ready(&world, &name, FEW).await?;
        let begun = Instant::now();
        callers.add(&world, &name, AFTER - BEFORE);
        // Between two of its calls a caller is none, so what is at once is a little less than the callers.
        let (nearly, whole) = tokio::try_join!(reach(&world, &name, MANY - 1), reach(&world, &name, MANY))?;
        let (nearly, whole) = (nearly.duration_since(begun), whole.duration_since(begun));
        eprintln!("    round {round}: {} pods after {nearly:.2?}, {MANY} after {whole:.2?}", MANY - 1);
        reactions.push(whole);
        nearly_all.push(nearly);
        all_ready(&world, &name, MANY).await?;
        ready.push(begun.elapsed());
        let scale = world.deployments().get_scale(&format!("{name}-00001")).await?;
        most = most.max(scale.spec.and_then(|s| s.replicas).unwrap_or(0));
        callers.stop.store(true, Ordering::Relaxed);
        join_all(callers.tasks).await;
        world.zero(&name).await?;
        world.delete(&name).await?;
    }
    let seconds = |percent| percentile(&reactions, percent).as_secs_f64();
    figures.note("step.reaction_s.p50", seconds(50), "s");
    figures.bar("step.reaction_s.max", seconds(100), "s", 1.5);
    figures.note("step.one_pod_short_s.max", percentile(&nearly_all, 100).as_secs_f64(), "s");
    figures.note("step.ready_s.p50", percentile(&ready, 50).as_secs_f64(), "s");
    figures.note("step.most_pods", f64::from(most), "pods");
    figures.bar("step.failures", failures.load(Ordering::Relaxed) as f64, "requests", 0.0);
    world.leave().await
}

/// The moment in which so many pods are asked for. Watched and not polled, so that the moment is that of the write.
async fn reach(world: &World, name: &str, pods: i32) -> Result<Instant> {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}-00001"));
    let mut seen = std::pin::pin!(watcher(world.deployments(), only).default_backoff().applied_objects());
    let reached = async {
        while let Some(deployment) = seen.try_next().await? {
            let Deployment { spec, .. } = deployment;
            if spec.and_then(|s| s.replicas).unwrap_or(0) >= pods {
                return Ok(Instant::now());
            }
        }
        bail!("the watch of the Deployment ended")
    };
    timeout(PATIENCE, reached).await.with_context(|| format!("{pods} pods of {name} were never asked for"))?
}

async fn all_ready(world: &World, name: &str, pods: i32) -> Result<()> {
    until(&format!("{pods} ready pods of {name}"), PATIENCE, || async {
        let count = world.pods(name).await?.iter().filter(|p| p.ready()).count();
        Ok((i32::try_from(count)? >= pods).then_some(()))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_those_that_the_target_wants() {
        let target = f64::from(LIMIT) * 0.7;
        let pods = |calls: usize| (calls as f64 / target).ceil() as i32;
        assert_eq!((pods(BEFORE), pods(AFTER)), (FEW, MANY));
    }
}
