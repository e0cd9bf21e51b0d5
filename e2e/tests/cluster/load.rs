//! Open-loop load at a constant rate: each request is sent when it is due, whether or not earlier ones have ended, so that a
//! stall affects every request that is due in it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use http::StatusCode;
use parking_lot::Mutex;
use rouse_e2e::workspace::Workspace;
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Longest duration of a load. Longer than all waits of a test together: `leaders` may wait four times for
/// [`rouse_e2e::workspace::TIMEOUT`] under one load.
const LONGEST: Duration = Duration::from_secs(900);

/// A running load.
pub(crate) struct Load {
    stop: CancellationToken,
    /// Returns whether it was stopped before [`LONGEST`].
    task: JoinHandle<bool>,
    seen: Arc<Mutex<LoadStats>>,
}

/// Results of the requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct LoadStats {
    /// Number of requests that ended.
    pub(crate) count: u32,
    /// Requests without status 200: status and body, or the error.
    pub(crate) failures: Vec<String>,
    /// Number of responses by their first word, the greeting, which identifies the revision.
    pub(crate) greetings: BTreeMap<String, u32>,
}

impl Load {
    /// Starts to send `rate` requests per second for `path`.
    pub(crate) fn start(workspace: &Workspace, name: &str, rate: u32, path: &str) -> Self {
        let (stop, seen) = (CancellationToken::new(), Arc::<Mutex<LoadStats>>::default());
        let task = tokio::spawn(requests(
            workspace.clone(),
            name.to_owned(),
            path.to_owned(),
            Duration::from_secs(1) / rate,
            stop.clone(),
            Arc::clone(&seen),
        ));
        Self { stop, task, seen }
    }

    /// Returns the results so far.
    pub(crate) fn stats(&self) -> LoadStats {
        self.seen.lock().clone()
    }

    /// Stops the load, waits for the requests in flight, and returns the results.
    pub(crate) async fn stop(self) -> Result<LoadStats> {
        self.stop.cancel();
        ensure!(self.task.await?, "the load ended after {} s, before the test", LONGEST.as_secs());
        let requests = self.seen.lock().clone();
        Ok(requests)
    }

    /// Like [`Self::stop`]; an error if a request failed.
    pub(crate) async fn stop_without_failures(self) -> Result<LoadStats> {
        let requests = self.stop().await?;
        let LoadStats { count, failures, .. } = &requests;
        ensure!(*count > 20, "only {count} requests were sent");
        ensure!(failures.is_empty(), "{} of {count} requests failed, the first with {}", failures.len(), failures[0]);
        Ok(requests)
    }
}

async fn requests(
    workspace: Workspace,
    name: String,
    path: String,
    interval: Duration,
    stop: CancellationToken,
    seen: Arc<Mutex<LoadStats>>,
) -> bool {
    let (started, mut in_flight) = (Instant::now(), JoinSet::new());
    let mut ended = false;
    for number in 0.. {
        let due = started + interval * number;
        if due.duration_since(started) > LONGEST {
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
        let (workspace, name, path, seen) = (workspace.clone(), name.clone(), path.clone(), Arc::clone(&seen));
        in_flight.spawn(async move {
            let response = workspace.get(&name, &path).await;
            let mut seen = seen.lock();
            seen.count += 1;
            match response {
                Ok(response) if response.status == StatusCode::OK => {
                    let word = response.text().split_whitespace().next().unwrap_or_default().to_owned();
                    *seen.greetings.entry(word).or_default() += 1;
                }
                Ok(response) => seen.failures.push(format!("{} {}", response.status, response.text())),
                Err(error) => seen.failures.push(format!("{error:#}")),
            }
        });
        while in_flight.try_join_next().is_some() {}
    }
    while in_flight.join_next().await.is_some() {}
    ended
}
