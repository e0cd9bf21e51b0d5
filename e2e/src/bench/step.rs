//! `step`: from five calls at once to fifty, and how long until as many pods are asked for as fifty need.

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
    figures::percentile,
    watched::{Watched, missed, most},
};
use crate::{
    Cluster,
    world::{PATIENCE, World, until},
};

/// About 20 s each, of which most is the end of the pods.
const ROUNDS: usize = 20;
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
    let (mut reactions, mut nearly_all, mut ready) = (vec![], vec![], vec![]);
    let (mut most_pods, mut missed_writes) = (0, 0);
    let failures = Arc::<AtomicU64>::default();
    for round in 0..ROUNDS {
        // One that is new in each round: nothing is remembered of the one before.
        let name = format!("step-{round}");
        let spec =
            json!({"scaling": {"concurrencyLimit": LIMIT, "idleTimeout": "5s", "stableWindow": "10s", "max": 30}});
        world.ready(&name, spec).await?;
        let mut callers = Callers { stop: Arc::default(), failures: Arc::clone(&failures), tasks: vec![] };
        // Watched and not polled, so that a moment is that of the write.
        let watched = Watched::begin(&world, names::revision_name(&name, 1)).await?;
        callers.add(&world, &name, BEFORE);
        watched.reached(Instant::now(), FEW).await?;
        all_ready(&world, &name, FEW).await?;
        let begun = Instant::now();
        callers.add(&world, &name, AFTER - BEFORE);
        // Between two of its calls a caller is none, so what is at once is a little less than the callers.
        let (nearly, whole) = tokio::join!(watched.reached(begun, MANY - 1), watched.reached(begun, MANY));
        let (nearly, whole) = (reaction(nearly, begun), reaction(whole, begun));
        eprintln!("    round {round}: {} pods after {nearly:.2?}, {MANY} after {whole:.2?}", MANY - 1);
        reactions.push(whole);
        nearly_all.push(nearly);
        if whole < PATIENCE {
            all_ready(&world, &name, MANY).await?;
        }
        ready.push(begun.elapsed());
        callers.stop.store(true, Ordering::Relaxed);
        join_all(callers.tasks).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        let looks = watched.end(&world).await?;
        (most_pods, missed_writes) = (most_pods.max(most(&looks)), missed_writes + missed(&looks));
        // Returns when the last pod is gone, so that no round takes time from the next.
        world.delete(&name).await?;
    }
    let seconds = |percent| percentile(&reactions, percent).as_secs_f64();
    figures.note("step.reaction_s.p50", seconds(50), "s");
    figures.bar("step.reaction_s.max", seconds(100), "s", 1.5);
    figures.note("step.one_pod_short_s.max", percentile(&nearly_all, 100).as_secs_f64(), "s");
    figures.note("step.ready_s.p50", percentile(&ready, 50).as_secs_f64(), "s");
    figures.note("step.most_pods", f64::from(most_pods), "pods");
    // With any of these a moment above may be too late, or a count too low.
    figures.bar("step.missed_writes", missed_writes as f64, "writes", 0.0);
    figures.bar("step.failures", failures.load(Ordering::Relaxed) as f64, "requests", 0.0);
    world.leave().await
}

/// A count that is never wanted is the worst reaction there is, and no reason to lose the other rounds.
fn reaction(reached: Result<Instant>, begun: Instant) -> Duration {
    match reached {
        Ok(at) => at.duration_since(begun),
        Err(error) => {
            eprintln!("    {error:#}");
            PATIENCE
        }
    }
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
