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

/// The state of the Deployment at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// When the watch event arrived.
    pub(super) at: Instant,
    /// `spec.replicas`.
    pub(super) wanted: i32,
    /// `status.readyReplicas`.
    pub(super) ready: i32,
    /// `metadata.generation`: the API server adds 1 for each change of the spec.
    pub(super) generation: i64,
}

/// A running watch of one Deployment. Dropping it ends the watch.
#[derive(Debug)]
pub(super) struct Watched {
    deployment: String,
    looks: watch::Receiver<Vec<Look>>,
    task: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    /// Starts the watch and returns when the Deployment was seen for the first time.
    pub(super) async fn start(workspace: &Workspace, deployment: String) -> Result<Self> {
        let (record, looks) = watch::channel(vec![]);
        let only = watcher::Config::default().fields(&format!("metadata.name={deployment}"));
        let task = tokio::spawn(follow(watcher(workspace.deployments(), only).default_backoff(), record));
        let watched = Self { deployment, looks, task };
        watched.until("existed", |looks| looks.first().map(|_| ())).await?;
        Ok(watched)
    }

    /// All looks so far, the oldest first. Never empty.
    pub(super) fn looks(&self) -> Vec<Look> {
        self.looks.borrow().clone()
    }

    /// Whether the Deployment was deleted, so that no look will follow.
    pub(super) fn is_over(&self) -> bool {
        self.looks.has_changed().is_err()
    }

    /// Waits until `find` returns something for the looks so far.
    ///
    /// # Errors
    ///
    /// If it does not within [`TIMEOUT`], or the Deployment was deleted.
    pub(super) async fn until<T>(&self, what: &str, find: impl Fn(&[Look]) -> Option<T>) -> Result<T> {
        let mut looks = self.looks.clone();
        let found = timeout(TIMEOUT, looks.wait_for(|looks| find(looks).is_some())).await;
        let found = found.with_context(|| format!("Deployment {} never {what}", self.deployment))?;
        let found = found.with_context(|| format!("Deployment {} was deleted before it {what}", self.deployment))?;
        find(&found).context("a look was lost")
    }

    /// The moment, not before `from`, in which at least so many pods were wanted.
    pub(super) async fn reached(&self, from: Instant, pods: i32) -> Result<Instant> {
        self.until(&format!("wanted {pods} pods"), |looks| reached(looks, from, pods)).await
    }

    /// Waits until the last write was seen, ends the watch, and returns all looks.
    pub(super) async fn stop(self, workspace: &Workspace) -> Result<Vec<Look>> {
        let last = workspace.deployments().get(&self.deployment).await?.metadata.generation.unwrap_or(0);
        self.until("showed its last write", |looks| looks.iter().any(|l| l.generation >= last).then_some(())).await?;
        Ok(self.looks())
    }
}

/// Records the events of a watch until the Deployment is deleted. A watch that fails is restarted by its stream.
async fn follow(events: impl Stream<Item = watcher::Result<Event<Deployment>>>, record: watch::Sender<Vec<Look>>) {
    let mut events = pin!(events);
    let mut listed = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = false,
            Ok(Event::Apply(deployment) | Event::InitApply(deployment)) => {
                listed = true;
                record.send_modify(|looks| looks.push(look(&deployment)));
            }
            // A list without the Deployment, after it had been there: it was deleted while the watch was down.
            Ok(Event::InitDone) if !listed && !record.borrow().is_empty() => return,
            Ok(Event::InitDone) => {}
            Ok(Event::Delete(_)) => return,
            Err(error) => eprintln!("    the watch of the Deployment failed and will be restarted: {error}"),
        }
    }
}

fn look(deployment: &Deployment) -> Look {
    let (spec, status) = (deployment.spec.as_ref(), deployment.status.as_ref());
    Look {
        at: Instant::now(),
        wanted: spec.and_then(|s| s.replicas).unwrap_or(0),
        ready: status.and_then(|s| s.ready_replicas).unwrap_or(0),
        generation: deployment.metadata.generation.unwrap_or(0),
    }
}

fn reached(looks: &[Look], from: Instant, pods: i32) -> Option<Instant> {
    // The state at `from` is that of the last look before it.
    let first = looks.iter().rposition(|l| l.at <= from).unwrap_or(0);
    looks[first..].iter().find(|l| l.wanted >= pods).map(|l| l.at.max(from))
}

/// The most pods that were wanted at once.
pub(super) fn most(looks: &[Look]) -> i32 {
    looks.iter().map(|l| l.wanted).max().unwrap_or(0)
}

/// Writes of the spec that no look shows, because the watch was down. While there are any, a count may have been missed.
pub(super) fn missed(looks: &[Look]) -> i64 {
    looks.windows(2).map(|pair| (pair[1].generation - pair[0].generation - 1).max(0)).sum()
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
        let (record, looks) = watch::channel(vec![]);
        let mut rest = stream::iter(events);
        follow(&mut rest, record).await;
        let seen: Vec<Look> = looks.borrow().clone();
        (seen.iter().map(|l| (l.wanted, l.ready)).collect(), rest.next().await.is_some())
    }

    #[tokio::test]
    async fn every_event_is_a_look_and_deletion_ends_the_watch() {
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
        for (name, events, looks, ended) in cases {
            assert_eq!(recorded(events).await, (looks, ended), "{name}");
        }
    }

    #[test]
    fn a_count_from_before_is_reached_at_once_only_if_it_still_holds() {
        let started = Instant::now();
        let at = |second: u64| started + Duration::from_secs(second);
        let look = |second, wanted| Look { at: at(second), wanted, ready: 0, generation: 0 };
        let looks = [look(0, 2), look(1, 20), look(2, 3), look(5, 15), look(6, 16)];
        assert_eq!(reached(&looks, at(3), 15), Some(at(5)));
        assert_eq!(reached(&looks, at(1), 15), Some(at(1)));
        assert_eq!(reached(&looks, at(3), 3), Some(at(3)));
        assert_eq!(reached(&looks, at(3), 17), None);
        assert_eq!(reached(&looks[3..], at(3), 15), Some(at(5)));
        assert_eq!(most(&looks), 20);
    }

    #[test]
    fn a_gap_in_the_generations_is_a_missed_write() {
        let looks = |generations: &[i64]| -> Vec<Look> {
            generations.iter().map(|g| Look { at: Instant::now(), wanted: 0, ready: 0, generation: *g }).collect()
        };
        for (generations, expected) in [(&[][..], 0), (&[7], 0), (&[1, 2, 2, 2, 3], 0), (&[1, 3, 3, 6], 3)] {
            assert_eq!(missed(&looks(generations)), expected, "{generations:?}");
        }
    }
}
