//! A watch of one Deployment that records every write, so that no count between two polls is missed.

use std::pin::pin;

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::{WatchStreamExt as _, watcher, watcher::Event};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::workspace::{TIMEOUT, Workspace};

/// State of the Deployment at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observation {
    /// Arrival time of the watch event.
    pub(super) at: Instant,
    /// `spec.replicas`.
    pub(super) wanted: i32,
    /// `status.readyReplicas`.
    pub(super) ready: i32,
    /// `metadata.generation`: the API server adds 1 for each change of the spec.
    pub(super) generation: i64,
}

/// A running watch of one Deployment. Dropping it stops the watch.
#[derive(Debug)]
pub(super) struct DeploymentWatch {
    deployment: String,
    observations: watch::Receiver<Vec<Observation>>,
    task: JoinHandle<()>,
}

impl Drop for DeploymentWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl DeploymentWatch {
    /// Starts the watch and returns after the first event.
    pub(super) async fn start(workspace: &Workspace, deployment: String) -> Result<Self> {
        let (record, observations) = watch::channel(vec![]);
        let only = watcher::Config::default().fields(&format!("metadata.name={deployment}"));
        let task = tokio::spawn(follow(watcher(workspace.deployments(), only).default_backoff(), record));
        let deployment_watch = Self { deployment, observations, task };
        deployment_watch.until("existed", |observations| observations.first().map(|_| ())).await?;
        Ok(deployment_watch)
    }

    /// Returns all observations so far, oldest first. Never empty.
    pub(super) fn observations(&self) -> Vec<Observation> {
        self.observations.borrow().clone()
    }

    /// Returns whether the Deployment was deleted, so that no observation will follow.
    pub(super) fn is_over(&self) -> bool {
        self.observations.has_changed().is_err()
    }

    /// Waits until `find` returns something for the observations so far.
    ///
    /// # Errors
    ///
    /// If it times out after [`TIMEOUT`], or the Deployment was deleted.
    pub(super) async fn until<T>(&self, what: &str, find: impl Fn(&[Observation]) -> Option<T>) -> Result<T> {
        let mut observations = self.observations.clone();
        let found = timeout(TIMEOUT, observations.wait_for(|observations| find(observations).is_some())).await;
        let found = found.with_context(|| format!("Deployment {} never {what}", self.deployment))?;
        let found = found.with_context(|| format!("Deployment {} was deleted before it {what}", self.deployment))?;
        find(&found).context("an observation was lost")
    }

    /// Waits until at least `pods` are desired, at `from` or later, and returns the time.
    pub(super) async fn reached(&self, from: Instant, pods: i32) -> Result<Instant> {
        self.until(&format!("wanted {pods} pods"), |observations| reached(observations, from, pods)).await
    }

    /// Waits until the last write was seen, stops the watch, and returns all observations.
    pub(super) async fn stop(self, workspace: &Workspace) -> Result<Vec<Observation>> {
        let last = workspace.deployments().get(&self.deployment).await?.metadata.generation.unwrap_or(0);
        self.until("showed its last write", |observations| {
            observations.iter().any(|l| l.generation >= last).then_some(())
        })
        .await?;
        Ok(self.observations())
    }
}

/// Records the events of a watch until the Deployment is deleted. A watch that fails is restarted by its stream.
async fn follow(
    events: impl Stream<Item = watcher::Result<Event<Deployment>>>,
    record: watch::Sender<Vec<Observation>>,
) {
    let mut events = pin!(events);
    let mut listed = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = false,
            Ok(Event::Apply(deployment) | Event::InitApply(deployment)) => {
                listed = true;
                record.send_modify(|observations| observations.push(observation(&deployment)));
            }
            // A list without the Deployment, after it had been there: it was deleted while the watch was down.
            Ok(Event::InitDone) if !listed && !record.borrow().is_empty() => return,
            Ok(Event::InitDone) => {}
            Ok(Event::Delete(_)) => return,
            Err(error) => eprintln!("    the watch of the Deployment failed and will be restarted: {error}"),
        }
    }
}

fn observation(deployment: &Deployment) -> Observation {
    let (spec, status) = (deployment.spec.as_ref(), deployment.status.as_ref());
    Observation {
        at: Instant::now(),
        wanted: spec.and_then(|s| s.replicas).unwrap_or(0),
        ready: status.and_then(|s| s.ready_replicas).unwrap_or(0),
        generation: deployment.metadata.generation.unwrap_or(0),
    }
}

fn reached(observations: &[Observation], from: Instant, pods: i32) -> Option<Instant> {
    // The state at `from` is that of the last observation before it.
    let first = observations.iter().rposition(|l| l.at <= from).unwrap_or(0);
    observations[first..].iter().find(|l| l.wanted >= pods).map(|l| l.at.max(from))
}

/// Returns the highest desired count.
pub(super) fn max_replicas(observations: &[Observation]) -> i32 {
    observations.iter().map(|l| l.wanted).max().unwrap_or(0)
}

/// Returns the writes of the spec that no observation shows, because the watch was down. While there are any, a count
/// may have been missed.
pub(super) fn missed(observations: &[Observation]) -> i64 {
    observations.windows(2).map(|pair| (pair[1].generation - pair[0].generation - 1).max(0)).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::stream;
    use serde_json::json;

    use super::*;

    fn deployment(generation: i64, wanted: i32, ready: i32) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "f-00001", "generation": generation},
            "spec": {"replicas": wanted, "selector": {}, "template": {}},
            "status": {"readyReplicas": ready},
        }))
        .unwrap()
    }

    /// What is recorded of the events, and whether the watch ended before the events did.
    async fn recorded(events: Vec<watcher::Result<Event<Deployment>>>) -> (Vec<(i32, i32)>, bool) {
        let (record, observations) = watch::channel(vec![]);
        let mut rest = stream::iter(events);
        follow(&mut rest, record).await;
        let seen: Vec<Observation> = observations.borrow().clone();
        (seen.iter().map(|l| (l.wanted, l.ready)).collect(), rest.next().await.is_some())
    }

    #[tokio::test]
    async fn every_event_is_an_observation_and_deletion_ends_the_watch() {
        let apply = |generation, wanted, ready| Ok(Event::Apply(deployment(generation, wanted, ready)));
        let listed = || Ok(Event::InitApply(deployment(1, 0, 0)));
        let failed = || Err(watcher::Error::NoResourceVersion);
        let (init, done) = (|| Ok(Event::Init), || Ok(Event::InitDone));
        let deleted = || Ok(Event::Delete(deployment(3, 0, 0)));
        let cases = [
            (
                "each write",
                vec![init(), listed(), done(), apply(2, 5, 0), apply(2, 5, 5)],
                vec![(0, 0), (5, 0), (5, 5)],
                false,
            ),
            ("not there at first", vec![init(), done(), apply(1, 1, 0)], vec![(1, 0)], false),
            (
                "restarted",
                vec![init(), listed(), done(), failed(), init(), listed(), done()],
                vec![(0, 0), (0, 0)],
                false,
            ),
            ("deleted", vec![init(), listed(), done(), deleted(), apply(1, 9, 9)], vec![(0, 0)], true),
            ("deleted unseen", vec![init(), listed(), done(), init(), done(), apply(1, 9, 9)], vec![(0, 0)], true),
        ];
        for (name, events, observations, ended) in cases {
            assert_eq!(recorded(events).await, (observations, ended), "{name}");
        }
    }

    #[test]
    fn a_count_from_before_is_reached_at_once_only_if_it_still_holds() {
        let started = Instant::now();
        let at = |second: u64| started + Duration::from_secs(second);
        let observation = |second, wanted| Observation { at: at(second), wanted, ready: 0, generation: 0 };
        let observations =
            [observation(0, 2), observation(1, 20), observation(2, 3), observation(5, 15), observation(6, 16)];
        assert_eq!(reached(&observations, at(3), 15), Some(at(5)));
        assert_eq!(reached(&observations, at(1), 15), Some(at(1)));
        assert_eq!(reached(&observations, at(3), 3), Some(at(3)));
        assert_eq!(reached(&observations, at(3), 17), None);
        assert_eq!(reached(&observations[3..], at(3), 15), Some(at(5)));
        assert_eq!(max_replicas(&observations), 20);
    }

    #[test]
    fn a_gap_in_the_generations_is_a_missed_write() {
        let observations = |generations: &[i64]| -> Vec<Observation> {
            generations
                .iter()
                .map(|g| Observation { at: Instant::now(), wanted: 0, ready: 0, generation: *g })
                .collect()
        };
        for (generations, expected) in [(&[][..], 0), (&[7], 0), (&[1, 2, 2, 2, 3], 0), (&[1, 3, 3, 6], 3)] {
            assert_eq!(missed(&observations(generations)), expected, "{generations:?}");
        }
    }
}
