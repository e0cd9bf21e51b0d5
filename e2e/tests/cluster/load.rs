//! Calls at a constant rate while something else goes on. Open loop: each begins when it is due, whether or not the ones
//! before it have ended, so that a stall is felt by every call that falls into it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use http::StatusCode;
use parking_lot::Mutex;
use rouse_e2e::world::World;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Should a test never end it. Longer than all waits of a test together: `leaders` may wait four times for
/// [`rouse_e2e::world::PATIENCE`] under one load.
const LONGEST: Duration = Duration::from_secs(900);

/// Calls that go on.
pub(crate) struct Load {
    stop: CancellationToken,
    /// Whether it was ended, and not over before.
    task: JoinHandle<bool>,
    seen: Arc<Mutex<Calls>>,
}

/// What became of the calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    /// All that were begun and ended.
    pub(crate) count: u32,
    /// Those that did not end with 200, in words.
    pub(crate) failures: Vec<String>,
    /// By the first word of their text: the greeting, which says which revision it was.
    pub(crate) greetings: BTreeMap<String, u32>,
}

impl Load {
    /// `rate` calls a second of `path`, from now on.
    pub(crate) fn begin(world: &World, name: &str, rate: u32, path: &str) -> Self {
        let (stop, seen) = (CancellationToken::new(), Arc::<Mutex<Calls>>::default());
        let task = tokio::spawn(calls(
            world.clone(),
            name.to_owned(),
            path.to_owned(),
            Duration::from_secs(1) / rate,
            stop.clone(),
            Arc::clone(&seen),
        ));
        Self { stop, task, seen }
    }

    /// What became of the calls so far.
    pub(crate) fn so_far(&self) -> Calls {
        self.seen.lock().clone()
    }

    /// Ends it, waits for the calls that are under way, and gives what became of all.
    pub(crate) async fn end(self) -> Result<Calls> {
        self.stop.cancel();
        ensure!(self.task.await?, "the load was over after {} s, before the test was", LONGEST.as_secs());
        let calls = self.seen.lock().clone();
        Ok(calls)
    }

    /// The same, and none may have failed.
    pub(crate) async fn end_well(self) -> Result<Calls> {
        let calls = self.end().await?;
        let Calls { count, failures, .. } = &calls;
        ensure!(*count > 20, "only {count} calls were made");
        ensure!(failures.is_empty(), "{} of {count} calls failed, the first with {}", failures.len(), failures[0]);
        Ok(calls)
    }
}

async fn calls(
    world: World,
    name: String,
    path: String,
    interval: Duration,
    stop: CancellationToken,
    seen: Arc<Mutex<Calls>>,
) -> bool {
    let (begun, mut under_way) = (Instant::now(), JoinSet::new());
    let mut ended = false;
    for number in 0.. {
        let due = begun + interval * number;
        if due.duration_since(begun) > LONGEST {
            break;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                ended = true;
                break;
            }
            () = sleep_until(due) => {}
        }
        let (world, name, path, seen) = (world.clone(), name.clone(), path.clone(), Arc::clone(&seen));
        under_way.spawn(async move {
            let answer = world.get(&name, &path).await;
            let mut seen = seen.lock();
            seen.count += 1;
            match answer {
                Ok(answer) if answer.status == StatusCode::OK => {
                    let word = answer.text().split_whitespace().next().unwrap_or_default().to_owned();
                    *seen.greetings.entry(word).or_default() += 1;
                }
                Ok(answer) => seen.failures.push(format!("{} {}", answer.status, answer.text())),
                Err(error) => seen.failures.push(format!("{error:#}")),
            }
        });
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
    ended
}
