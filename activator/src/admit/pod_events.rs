//! Pod events: what a breaker does when a pod changes, is deleted, or is probed, and after a wake.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rouse_crds::pod::PodFailure;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    admission::BUILD_RETRY,
    pod_tracker::PodTracker,
    rejection::Rejection,
    state::{Breaker, Effects, Revision},
};
use crate::{
    backoff::jitter,
    endpoints::{Endpoint, PodFacts, ProbeObserver, ProbeRequest},
    wake::WakeError,
};

/// Delay before a pod is probed again that could not be connected to, at first and at most.
const UNREACHABLE_RETRY: Duration = Duration::from_millis(50);
const UNREACHABLE_RETRY_MAX: Duration = Duration::from_secs(5);

impl Breaker {
    /// Handles a pod that was created or has changed.
    pub fn pod_updated(self: &Arc<Self>, facts: &PodFacts) {
        self.with(|inner, effects| {
            let policy = self.policy();
            if inner.closed {
                return;
            }
            let now = Instant::now();
            let revision = self.revision(inner, &facts.revision);
            let initial_ramp = revision.initial_ramp(now, &policy);
            let live_before = revision.live().next().is_some();
            let index = revision.trackers.iter().position(|tracker| tracker.id == facts.id).unwrap_or_else(|| {
                revision.trackers.push(PodTracker::new(facts.id.clone()));
                revision.trackers.len() - 1
            });
            let tracker = &mut revision.trackers[index];
            if facts.scheduled {
                tracker.scheduled.get_or_insert(now);
            }
            let newly_failed = tracker.apply_failure(now, facts, self.context().bounds.unschedulable_grace);
            let address = facts.ip.map(|ip| SocketAddr::new(ip, facts.port.unwrap_or(policy.port)));
            tracker.has_address = address.is_some();
            if let Some(address) = address.filter(|a| tracker.endpoint.as_ref().is_none_or(|e| e.address != *a)) {
                let protocol = facts.protocol.unwrap_or(policy.protocol);
                let readiness = facts.readiness.clone().unwrap_or_else(|| policy.readiness_check());
                tracker.endpoint = Some(Arc::new(Endpoint::new(address, protocol, readiness)));
                tracker.started = Some(now);
                tracker.end_probe();
                tracker.serving = false;
                tracker.ready = false;
                tracker.became_unready = false;
            }
            let became_ready = tracker.apply_readiness(facts);
            tracker.draining = facts.draining;
            revision.account.pod_seen(&facts.id, tracker.endpoint.as_ref(), facts.draining);
            if newly_failed || !tracker.has_address {
                // The container has ended, or the address is another pod's.
                tracker.serving = false;
            }
            if became_ready && !tracker.draining {
                tracker.mark_serving(now, initial_ramp);
            }
            tracker.probe_if_needed(Duration::ZERO, effects);
            let live = revision.live().next().is_some();
            if live != live_before {
                revision.reset_wake();
            }
            if let Some(rejection) = revision.check_failing(now) {
                tracing::info!(function = %self.id(), revision = %revision.name, ?rejection, "All pods of the revision fail; rejecting queued requests");
                let name = revision.name.clone();
                inner.refuse(&name, &rejection, effects);
            }
            inner.dispatch_all(self, policy.limit, effects);
        });
    }

    /// Handles a pod that was deleted.
    pub fn pod_deleted(self: &Arc<Self>, revision: &str, id: &str) {
        self.with(|inner, effects| {
            if inner.closed {
                return;
            }
            let revision = self.revision(inner, revision);
            let live_before = revision.live().next().is_some();
            revision.trackers.retain(|tracker| *tracker.id != *id);
            revision.account.pod_gone(id);
            let live = revision.live().next().is_some();
            if live != live_before {
                revision.reset_wake();
            }
            if let Some(rejection) = revision.check_failing(Instant::now()) {
                let name = revision.name.clone();
                inner.refuse(&name, &rejection, effects);
            }
            inner.remove_unused_revisions();
            effects.notify = true;
        });
    }

    /// Sets or clears the operator's report that pods cannot be created. It rejects requests that wait for a revision
    /// which was woken and has no pod.
    pub fn set_pod_creation_failure(self: &Arc<Self>, failure: Option<PodFailure>) {
        self.with(|inner, effects| {
            inner.pod_creation_failure.clone_from(&failure);
            let Some(failure) = failure else { return };
            let now = Instant::now();
            let stuck =
                |r: &&mut Revision| r.trackers.is_empty() && !r.queue.is_empty() && r.wake.acknowledged.is_some();
            let Some(revision) = inner.revisions.iter_mut().find(stuck) else { return };
            let rejection = revision.health.record_failure(now, failure);
            let name = revision.name.clone();
            inner.refuse(&name, &rejection, effects);
            effects.notify = true;
        });
    }

    /// Sets or clears the operator's report that the Function has no revision with traffic, because its spec is invalid or
    /// the API server rejects its objects. Requests that wait for a revision without pods are rejected.
    pub fn set_build_failure(self: &Arc<Self>, failure: Option<PodFailure>) {
        self.with(|inner, effects| {
            inner.build_failure.clone_from(&failure);
            let Some(failure) = failure else { return };
            let without_pods = inner.revisions.iter().filter(|r| r.live().next().is_none());
            let names: Vec<_> = without_pods.map(|r| r.name.clone()).collect();
            for name in names {
                let rejection = Rejection::Failing { failure: failure.clone(), retry_after: BUILD_RETRY };
                inner.refuse(&name, &rejection, effects);
            }
            effects.notify = true;
        });
    }

    /// Returns what blocks a queued request, if that is known.
    pub(super) fn blocked_by(&self, sequence: u64) -> Option<PodFailure> {
        let inner = self.lock();
        let revision = inner.revisions.iter().find(|r| r.queue.contains_key(&sequence))?;
        let of_a_pod = || revision.live().find_map(|tracker| tracker.failure.clone());
        let of_all = || inner.pod_creation_failure.clone().filter(|_| revision.trackers.is_empty());
        of_a_pod().or_else(of_all)
    }

    /// Handles a successful probe.
    pub(crate) fn endpoint_ready(self: &Arc<Self>, endpoint: &Arc<Endpoint>) {
        self.with(|inner, effects| {
            let policy = self.policy();
            let now = Instant::now();
            for revision in &mut inner.revisions {
                let initial_ramp = revision.initial_ramp(now, &policy);
                // A probe may succeed at the moment in which it is stopped.
                let found = |tracker: &&mut PodTracker| tracker.is(endpoint) && tracker.needs_probe();
                if let Some(tracker) = revision.trackers.iter_mut().find(found) {
                    tracker.mark_serving(now, initial_ramp);
                    revision.failing = false;
                }
            }
            inner.dispatch_all(self, policy.limit, effects);
        });
    }

    /// Ejects a pod that could not be connected to.
    pub(super) fn mark_unreachable(self: &Arc<Self>, endpoint: &Arc<Endpoint>) {
        self.with(|inner, effects| {
            let trackers = inner.revisions.iter_mut().flat_map(|r| &mut r.trackers);
            if let Some(tracker) = trackers.into_iter().find(|tracker| tracker.is(endpoint) && tracker.serving) {
                let delay = jitter(UNREACHABLE_RETRY, endpoint.record_connect_failure(), UNREACHABLE_RETRY_MAX);
                tracing::warn!(function = %self.id(), address = %endpoint.address, ?delay, "Failed to connect to a pod; ejecting it until a probe succeeds");
                tracker.serving = false;
                tracker.probe_if_needed(delay, effects);
            }
        });
    }

    /// Raises the ramp limits of all revisions that have queued requests.
    pub fn ramp(self: &Arc<Self>) {
        self.with(|inner, effects| {
            let policy = self.policy();
            let now = Instant::now();
            for index in 0..inner.revisions.len() {
                let revision = &mut inner.revisions[index];
                if revision.queue.is_empty() {
                    continue;
                }
                revision.ramp(now, &policy);
                inner.dispatch(self, index, policy.limit, effects);
            }
        });
    }

    /// Handles the result of a wake.
    pub fn woken(self: &Arc<Self>, revision: &str, result: Result<(), WakeError>) {
        match &result {
            Ok(()) => tracing::info!(function = %self.id(), revision, "Woke a revision"),
            Err(error @ WakeError::Awake) => {
                tracing::debug!(function = %self.id(), revision, %error, "Wake not needed");
            }
            Err(error) => {
                tracing::warn!(function = %self.id(), revision, %error, "Failed to wake a revision; will retry");
            }
        }
        self.with(|inner, effects| inner.woken(Instant::now(), revision, result, effects));
    }
}

impl ProbeObserver for Breaker {
    fn on_ready(self: Arc<Self>, endpoint: &Arc<Endpoint>) {
        self.endpoint_ready(endpoint);
    }
}

impl PodTracker {
    fn is(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.endpoint.as_ref().is_some_and(|e| Arc::ptr_eq(e, endpoint))
    }

    /// Starts a probe if one is needed and none is running, and stops it if none is needed.
    fn probe_if_needed(&mut self, delay: Duration, effects: &mut Effects) {
        let needed = self.needs_probe();
        match (&self.endpoint, &self.probe) {
            (Some(endpoint), None) if needed => {
                let stop = CancellationToken::new();
                self.probe = Some(stop.clone());
                let (endpoint, kubelet_ready) = (endpoint.clone(), self.ready);
                effects.probes.push(ProbeRequest { endpoint, delay, kubelet_ready, stop });
            }
            _ if !needed => self.end_probe(),
            _ => {}
        }
    }
}
