//! State that the scaler keeps for a Function between two reconciles.

use std::time::Duration;

use rouse_autoscaler::{Decision, IdleHistogram, Learned, Reason, State};
use rouse_crds::function::TrafficStatus;
use tokio::time::Instant;

use super::{drain::DrainTracker, history::DecisionHistory, idle_histogram::Persisted};
use crate::{cluster::children::DeploymentObject, spec::schedules::Timetable};

/// Longest time to wait until the cache contains a write. After that, the cached object is used as it is.
pub(super) const CACHE_TIMEOUT: Duration = Duration::from_secs(2);

/// State of one Function.
#[derive(Debug, Default)]
pub(super) struct FunctionTracker {
    /// By name. A list, since most Functions have one revision.
    pub(super) revisions: Vec<(String, RevisionTracker)>,
    /// `None` for a Function without schedules.
    pub(super) timetable: Option<Box<Timetable>>,
    /// Last write of the idle-time histogram.
    pub(super) persisted: Persisted,
}

impl FunctionTracker {
    /// Returns the state of `revision`; inserts `new` if there is none.
    pub(super) fn revision(&mut self, revision: &str, new: impl FnOnce() -> RevisionTracker) -> &mut RevisionTracker {
        let index = self.revisions.iter().position(|(name, _)| name == revision).unwrap_or_else(|| {
            self.revisions.reserve_exact(1);
            self.revisions.push((revision.to_owned(), new()));
            self.revisions.len() - 1
        });
        &mut self.revisions[index].1
    }

    /// Returns what was learned of the newest revision with measurements.
    pub(super) fn learned(&self) -> Learned {
        let learned =
            |(_, tracker): &(String, RevisionTracker)| Some(tracker.state.learned()).filter(|l| l.service.is_some());
        self.revisions.iter().rev().find_map(learned).unwrap_or_default()
    }

    /// Returns the state of `revision`, if there is any.
    pub(super) fn get(&self, revision: &str) -> Option<&RevisionTracker> {
        self.revisions.iter().find(|(name, _)| name == revision).map(|(_, tracker)| tracker)
    }

    /// Returns the idle-time histogram of the revision with the highest traffic percentage.
    pub(super) fn idle_histogram(&self, traffic: &[TrafficStatus]) -> Option<&IdleHistogram> {
        let percent = |name: &str| traffic.iter().filter(|t| t.revision == name).map(|t| t.percent).sum::<i32>();
        let known = self.revisions.iter().filter_map(|(name, tracker)| Some((name, tracker.state.idle_histogram()?)));
        known.max_by_key(|(name, _)| (percent(name), name.as_str())).map(|(_, histogram)| histogram)
    }
}

/// State of one revision.
#[derive(Debug)]
pub(super) struct RevisionTracker {
    /// `uid` of its Deployment.
    pub(super) uid: Option<String>,
    pub(super) state: State,
    pub(super) last_decision: Option<Decision>,
    pub(super) history: DecisionHistory,
    pub(super) drain: DrainTracker,
    /// The `resourceVersion` that the last write was based on, and the time of the write, until the cache has a newer
    /// version or [`CACHE_TIMEOUT`] has passed.
    pub(super) pending_write: Option<(Option<String>, Instant)>,
    /// Number of consecutive failed writes.
    pub(super) failures: u32,
    pub(super) external: ExternalChanges,
}

impl RevisionTracker {
    /// Creates the state of a revision whose Deployment has this `uid`.
    pub(super) fn new(uid: Option<String>, state: State) -> Self {
        Self {
            uid,
            state,
            last_decision: None,
            history: DecisionHistory::default(),
            drain: DrainTracker::default(),
            pending_write: None,
            failures: 0,
            external: ExternalChanges::default(),
        }
    }

    /// Returns until when to wait for the cache to contain the last write; `None` if it does, or the wait is over.
    pub(super) fn wait_for_cache(&mut self, deployment: &DeploymentObject) -> Option<Instant> {
        let (version, at) = self.pending_write.as_ref()?;
        let until = *at + CACHE_TIMEOUT;
        if *version == deployment.metadata.resource_version && Instant::now() < until {
            return Some(until);
        }
        self.pending_write = None;
        None
    }
}

/// Detects changes of `replicas` that neither the scaler nor an activator made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ExternalChanges {
    /// Last observed count.
    observed: Option<u32>,
    /// Last count that the scaler requested, whether the write succeeded or not.
    requested: Option<u32>,
    /// Last external change: from, to.
    change: Option<(u32, u32)>,
}

impl ExternalChanges {
    /// Records the current count. A change from zero counts as an activator's wake: a manual one looks the same and is
    /// treated like a request.
    pub(super) fn observe(&mut self, desired: u32) {
        let Some(before) = self.observed.replace(desired).filter(|before| *before != desired) else { return };
        let external = before > 0 && self.requested != Some(desired);
        self.change = external.then_some((before, desired));
    }

    /// Records a decision. An external change to the decided count, or to a paused revision, is not corrected.
    pub(super) fn decided(&mut self, replicas: u32, reason: Reason) {
        if reason == Reason::Paused || self.change.is_some_and(|(_, to)| to == replicas) {
            self.change = None;
        }
    }

    /// Records that the scaler requests `replicas`.
    pub(super) fn request(&mut self, replicas: u32) {
        self.requested = Some(replicas);
    }

    /// Returns the external change that is to be corrected: from, to.
    pub(super) fn change(&self) -> Option<(u32, u32)> {
        self.change
    }

    /// Records that the correction was written and reported.
    pub(super) fn corrected(&mut self) {
        self.change = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(counts: &[u32]) -> ExternalChanges {
        let mut external = ExternalChanges::default();
        for count in counts {
            external.observe(*count);
        }
        external
    }

    #[test]
    fn external_changes_are_detected() {
        assert_eq!(observed(&[3]).change(), None, "the initial count");
        assert_eq!(observed(&[3, 3]).change(), None);
        assert_eq!(observed(&[3, 5]).change(), Some((3, 5)));
        assert_eq!(observed(&[0, 5]).change(), None, "an activator's wake");
        assert_eq!(observed(&[3, 0]).change(), Some((3, 0)));
        let mut own = observed(&[3]);
        own.request(5);
        own.observe(5);
        assert_eq!(own.change(), None);
        own.observe(3);
        assert_eq!(own.change(), Some((5, 3)));
    }

    #[test]
    fn an_external_change_is_corrected_once_and_only_if_the_decision_differs() {
        let mut external = observed(&[3, 5]);
        external.decided(4, Reason::Load);
        assert!(external.change().is_some());
        external.corrected();
        assert_eq!(external.change(), None);
        let mut external = observed(&[3, 5]);
        external.decided(5, Reason::Load);
        assert_eq!(external.change(), None);
        let mut external = observed(&[3, 5]);
        external.decided(5, Reason::Paused);
        external.decided(4, Reason::Load);
        assert_eq!(external.change(), None, "a paused revision may be scaled manually");
    }
}
