//! One pod, as its gate sees it.

use std::sync::Arc;

use rouse_crds::pod::PodFailure;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::endpoints::Endpoint;

/// Waiting requests that a pod gets at first. It grows with each one that ends and with time, so that a pod that has just
/// begun to listen is not handed a whole crowd.
const FIRST_CROWD: u32 = 100;

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
    pub(super) fn admit(&mut self, now: Instant, somebody_waits: bool) {
        self.end_probe();
        if !self.serving {
            self.serving = true;
            self.admitted = Some(now);
            self.crowd = if somebody_waits { FIRST_CROWD } else { u32::MAX };
        }
    }

    /// Widens what it may have of those that wait.
    pub(super) fn widen(&mut self, by: u32) {
        self.crowd = self.crowd.saturating_add(by);
    }

    /// Ends the probe that is under way.
    pub(super) fn end_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.cancel();
        }
    }

    /// It fails, and nothing says that it will serve.
    pub(super) fn fails(&self) -> bool {
        !self.serving && self.failure.is_some()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.end_probe();
    }
}
