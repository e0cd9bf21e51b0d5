//! Pod tracker: the state of one pod in its breaker.

use std::{sync::Arc, time::Duration};

use rouse_crds::pod::{Cause, Ended, PodFailure, ReadinessCheck};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::endpoints::{Endpoint, PodFacts};

/// Queued requests that a pod gets at first. The limit rises with each one that ends and over time, so that a pod that
/// has just begun to listen is not overloaded.
pub(super) const INITIAL_RAMP: u32 = 100;

/// Up to this concurrency limit pods are filled one after the other, so that the last ones become idle and can be
/// removed.
pub(super) const SMALL_LIMIT: u32 = 10;

/// How long requests wait after a failure of the container runtime, the kubelet or the registry. The kubelet restarts a
/// container at once after its first failure, and pulls an image again after about ten seconds.
pub(super) const NODE_GRACE: Duration = Duration::from_secs(10);

/// The state of one pod in its breaker.
#[derive(Debug)]
pub(super) struct PodTracker {
    /// Name and uid.
    pub(super) id: Box<str>,
    /// Set once the pod has had an IP address.
    pub(super) endpoint: Option<Arc<Endpoint>>,
    /// The address of `endpoint` is the pod's. It is not while another pod has it.
    pub(super) has_address: bool,
    /// A probe or the kubelet found that the pod takes requests.
    pub(super) serving: bool,
    /// The pod is being removed, and gets no new requests.
    pub(super) draining: bool,
    /// The kubelet reports the pod as ready.
    pub(super) ready: bool,
    /// The kubelet reported the pod ready and then not ready, and no container has ended since: the kubelet knows more
    /// than a probe would find.
    pub(super) became_unready: bool,
    /// Number of restarts of its containers.
    pub(super) restarts: i32,
    /// Why the pod does not serve. A successful probe clears it.
    pub(super) failure: Option<PodFailure>,
    /// The time from which the failure counts.
    pub(super) fails_from: Option<Instant>,
    /// The pod has served since its container last started.
    pub(super) has_served: bool,
    /// The failure that the watch reported last, so that only a change is acted on.
    pub(super) last_reported: Option<PodFailure>,
    /// Number of queued requests that the pod may have at once; `u32::MAX` after the queue was empty.
    pub(super) ramp_limit: u32,
    /// When this process first saw the pod scheduled to a node.
    pub(super) scheduled: Option<Instant>,
    /// When this process first saw the pod with its present address.
    pub(super) started: Option<Instant>,
    /// When the pod began to serve.
    pub(super) serving_since: Option<Instant>,
    /// Stops the running probe.
    pub(super) probe: Option<CancellationToken>,
}

impl PodTracker {
    pub(super) fn new(id: Box<str>) -> Self {
        Self {
            id,
            endpoint: None,
            has_address: false,
            serving: false,
            draining: false,
            ready: false,
            became_unready: false,
            restarts: 0,
            failure: None,
            fails_from: None,
            has_served: false,
            last_reported: None,
            ramp_limit: u32::MAX,
            scheduled: None,
            started: None,
            serving_since: None,
            probe: None,
        }
    }

    /// Whether the pod can take one more request, which was queued or is new.
    pub(super) fn has_capacity(&self, limit: Option<u32>, waited: bool) -> bool {
        let Some(load) = self.load() else { return false };
        limit.is_none_or(|limit| load < limit) && (!waited || load < self.ramp_limit)
    }

    /// Returns the requests in the pod, if it can take requests at all.
    pub(super) fn load(&self) -> Option<u32> {
        if !self.serving || self.draining {
            return None;
        }
        self.endpoint.as_ref().map(|e| e.in_flight())
    }

    /// Lets the pod serve from `now` on.
    pub(super) fn mark_serving(&mut self, now: Instant, ramp_limit: Option<u32>) {
        self.end_probe();
        // It responds, whatever was reported of it before.
        self.failure = None;
        self.has_served = true;
        if !self.serving {
            self.serving = true;
            self.serving_since = Some(now);
            self.ramp_limit = ramp_limit.unwrap_or(u32::MAX);
        }
    }

    /// Applies the readiness and the restarts that the watch reports. Returns whether the pod has become ready.
    pub(super) fn apply_readiness(&mut self, facts: &PodFacts) -> bool {
        let ready = facts.ready && self.has_address;
        let restarted = facts.ended == Ended::Now || facts.restarts > self.restarts;
        let ready_before = std::mem::replace(&mut self.ready, ready);
        self.restarts = facts.restarts;
        self.became_unready = !ready && !restarted && (ready_before || self.became_unready);
        if ready_before && !ready {
            self.serving = false;
        }
        if ready_before != ready {
            // Its probe depends on what the kubelet reports.
            self.end_probe();
        }
        ready && !ready_before
    }

    /// Whether a probe may find that the pod takes requests. What an activator cannot check is left to the kubelet: then
    /// only a pod that was excluded after a failed connect is probed, while the kubelet holds it ready.
    pub(super) fn needs_probe(&self) -> bool {
        let checkable = || self.ready || self.endpoint.as_ref().is_some_and(|e| e.readiness != ReadinessCheck::Kubelet);
        !self.serving && !self.draining && self.has_address && !self.became_unready && checkable()
    }

    /// Raises the ramp limit by `by`, to `most` at most.
    pub(super) fn raise_ramp(&mut self, by: u32, most: u32) {
        self.ramp_limit = self.ramp_limit.max(self.ramp_limit.saturating_add(by).min(most));
    }

    /// Applies the failure that the watch reports, and returns whether it is a new one.
    pub(super) fn apply_failure(&mut self, now: Instant, facts: &PodFacts, grace: Duration) -> bool {
        let is_new = facts.failure.is_some() && self.last_reported != facts.failure;
        match &facts.failure {
            Some(failure) if is_new => {
                // A container that ends after it has served is restarted at once, and queued requests wait for that.
                // One that ends again before it has served is a failure.
                let starts_again = std::mem::take(&mut self.has_served) && facts.ended == Ended::Now;
                self.fails_from = match (failure.cause(), &self.failure) {
                    (Cause::Revision, _) => Some(now),
                    // The message of the scheduler changes with the nodes, and the kubelet waits between two attempts: the
                    // grace period goes on, or has ended.
                    (_, Some(_)) => self.fails_from,
                    (Cause::Node, None) => Some(now + NODE_GRACE),
                    (Cause::Cluster, None) => Some(now + grace),
                };
                self.failure = Some(failure.clone()).filter(|_| !starts_again);
            }
            // The container runs again after it has ended. Only a successful probe clears the failure: otherwise each
            // restart of a crashing container would queue requests, and they would keep it alive.
            None if facts.ended != Ended::Never => {}
            None => self.failure = None,
            Some(_) => {}
        }
        self.last_reported.clone_from(&facts.failure);
        is_new
    }

    /// Stops the running probe.
    pub(super) fn end_probe(&mut self) {
        if let Some(probe) = self.probe.take() {
            probe.cancel();
        }
    }

    /// Whether the pod fails now.
    pub(super) fn is_failing(&self, now: Instant) -> bool {
        !self.serving && self.failure.is_some() && self.fails_from.is_none_or(|from| from <= now)
    }

    /// Returns the time at which the pod will count as failing, unless something changes.
    pub(super) fn fails_at(&self, now: Instant) -> Option<Instant> {
        self.fails_from.filter(|from| *from > now && !self.serving && self.failure.is_some())
    }
}

impl Drop for PodTracker {
    fn drop(&mut self) {
        self.end_probe();
    }
}
