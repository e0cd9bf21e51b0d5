//! One pod, as its gate sees it.

use std::{sync::Arc, time::Duration};

use rouse_crds::pod::{Ended, PodFailure, UNSCHEDULABLE};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::endpoints::{Endpoint, PodFacts};

/// Waiting requests that a pod gets at first. It grows with each one that ends and with time, so that a pod that has just
/// begun to listen is not handed a whole crowd.
pub(super) const FIRST_CROWD: u32 = 100;

/// Up to this limit pods are filled one after the other, so that the last ones fall idle and can go.
pub(super) const SMALL_LIMIT: u32 = 10;

/// One pod, as its gate sees it.
#[derive(Debug)]
pub(super) struct Slot {
    /// Name and uid.
    pub(super) id: Box<str>,
    /// Once it has an address.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// It takes requests, as a probe or kubelet found.
    pub(super) serving: bool,
    /// It is going, and gets nothing new.
    pub(super) draining: bool,
    /// kubelet calls it ready.
    pub(super) ready: bool,
    /// Why it will not serve. An answer of the pod itself clears it.
    pub(super) failure: Option<PodFailure>,
    /// From when on that counts.
    pub(super) fails_from: Option<Instant>,
    /// It has served, and its container has not ended since.
    pub(super) proven: bool,
    /// What the watch said last of why it will not serve, so that only news is acted on.
    pub(super) reported: Option<PodFailure>,
    /// How many of those that wait it may have; `u32::MAX` once nobody waited any more.
    pub(super) crowd: u32,
    /// When this process first saw it with a node.
    pub(super) scheduled: Option<Instant>,
    /// When this process first saw it with its present address.
    pub(super) started: Option<Instant>,
    /// When it began to serve.
    pub(super) admitted: Option<Instant>,
    /// Ends the probe that is under way.
    pub(super) probe: Option<CancellationToken>,
}

impl Slot {
    pub(super) fn new(id: Box<str>) -> Self {
        Self {
            id,
            endpoint: None,
            serving: false,
            draining: false,
            ready: false,
            failure: None,
            fails_from: None,
            proven: false,
            reported: None,
            crowd: u32::MAX,
            scheduled: None,
            started: None,
            admitted: None,
            probe: None,
        }
    }

    /// Whether it may get one more request now.
    pub(super) fn has_room(&self, limit: Option<u32>, waited: bool) -> bool {
        let Some(load) = self.load() else { return false };
        limit.is_none_or(|limit| load < limit) && (!waited || load < self.crowd)
    }

    /// Requests in it, if it may get any at all.
    pub(super) fn load(&self) -> Option<u32> {
        if !self.serving || self.draining {
            return None;
        }
        self.endpoint.as_ref().map(|e| e.in_flight())
    }

    /// Lets it serve from `now` on.
    pub(super) fn admit(&mut self, now: Instant, crowd: Option<u32>) {
        self.end_probe();
        // It answers, whatever was said of it before.
        self.failure = None;
        self.proven = true;
        if !self.serving {
            self.serving = true;
            self.admitted = Some(now);
            self.crowd = crowd.unwrap_or(u32::MAX);
        }
    }

    /// Widens what it may have of those that wait, to `most` at most.
    pub(super) fn widen(&mut self, by: u32, most: u32) {
        self.crowd = self.crowd.max(self.crowd.saturating_add(by).min(most));
    }

    /// Takes in what the watch says of why it will not serve, and tells whether that is news.
    pub(super) fn hear(&mut self, now: Instant, facts: &PodFacts, grace: Duration) -> bool {
        let news = facts.failure.is_some() && self.reported != facts.failure;
        match &facts.failure {
            Some(failure) if news => {
                // A container that ends after it has served is started again at once, and calls wait for that. One that
                // ends again before it has answered is a failure.
                let starts_again = std::mem::take(&mut self.proven) && facts.ended == Ended::Now;
                self.fails_from = match &self.failure {
                    // The scheduler's sentence changes with the nodes, and the grace goes on.
                    Some(former) if former.reason == UNSCHEDULABLE && failure.reason == UNSCHEDULABLE => {
                        self.fails_from
                    }
                    _ if failure.reason == UNSCHEDULABLE => Some(now + grace),
                    _ => Some(now),
                };
                self.failure = Some(failure.clone()).filter(|_| !starts_again);
            }
            // It runs again after it has ended: it is believed when it answers, or else each start of a container that
            // crashes would let callers wait, and they would keep it alive.
            None if facts.ended != Ended::Never => {}
            None => self.failure = None,
            Some(_) => {}
        }
        self.reported.clone_from(&facts.failure);
        news
    }

    /// Ends the probe that is under way.
    pub(super) fn end_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.cancel();
        }
    }

    /// It fails, and nothing says that it will serve.
    pub(super) fn fails(&self, now: Instant) -> bool {
        !self.serving && self.failure.is_some() && self.fails_from.is_none_or(|from| from <= now)
    }

    /// When it will count as failing, if nothing comes between.
    pub(super) fn will_fail(&self, now: Instant) -> Option<Instant> {
        self.fails_from.filter(|from| *from > now && !self.serving && self.failure.is_some())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.end_probe();
    }
}
