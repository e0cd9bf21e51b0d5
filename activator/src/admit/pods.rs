//! What a gate does when it hears of its pods.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rouse_crds::pod::PodFailure;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    slot::Slot,
    state::{Effects, Gate, Revision},
};
use crate::{
    backoff::jitter,
    endpoints::{Endpoint, PodFacts, Probed},
    wake::WakeError,
};

/// How long a pod is left alone that could not be connected to, at first and at most.
const ASIDE: Duration = Duration::from_millis(50);
const LONGEST_ASIDE: Duration = Duration::from_secs(5);

impl Gate {
    /// A pod of this Function is there, or has changed.
    pub fn pod_seen(self: &Arc<Self>, facts: &PodFacts) {
        self.with(|inner, effects| {
            let policy = self.policy();
            if inner.closed {
                return;
            }
            let now = Instant::now();
            let revision = self.revision(inner, &facts.revision);
            let first_crowd = revision.first_crowd(now, &policy);
            let live_before = revision.live().next().is_some();
            let index = revision.slots.iter().position(|slot| slot.id == facts.id).unwrap_or_else(|| {
                revision.slots.push(Slot::new(facts.id.clone()));
                revision.slots.len() - 1
            });
            let slot = &mut revision.slots[index];
            if facts.scheduled {
                slot.scheduled.get_or_insert(now);
            }
            let newly_failed = slot.hear(now, facts, self.context().bounds.unschedulable_grace);
            let address = facts.ip.map(|ip| SocketAddr::new(ip, facts.port.unwrap_or(policy.port)));
            if let Some(address) = address.filter(|a| slot.endpoint.as_ref().is_none_or(|e| e.address != *a)) {
                let path = facts.readiness_path.clone().or_else(|| policy.readiness_path.as_deref().map(Into::into));
                let protocol = facts.protocol.unwrap_or(policy.protocol);
                slot.endpoint = Some(Arc::new(Endpoint::new(address, protocol, path)));
                slot.started = Some(now);
                slot.end_probe();
                slot.serving = false;
                slot.ready = false;
            }
            let ready_before = std::mem::replace(&mut slot.ready, facts.ready && slot.endpoint.is_some());
            slot.draining = facts.draining;
            revision.account.pod_seen(&facts.id, slot.endpoint.as_ref(), facts.draining);
            if newly_failed || (ready_before && !slot.ready) {
                // Its container is gone or says that it cannot: only an answer lets it serve again.
                slot.serving = false;
            }
            if slot.ready && !ready_before && !slot.draining {
                slot.admit(now, first_crowd);
            }
            slot.probe_if_needed(Duration::ZERO, effects);
            let live = revision.live().next().is_some();
            if live != live_before {
                revision.wake_anew();
            }
            if let Some(refusal) = revision.judge(now) {
                tracing::info!(function = %self.id(), revision = %revision.name, ?refusal, "The pods of a revision fail");
                let name = revision.name.clone();
                inner.refuse(&name, &refusal, effects);
            }
            inner.pump_all(self, policy.limit, effects);
        });
    }

    /// A pod of this Function is gone.
    pub fn pod_gone(self: &Arc<Self>, revision: &str, id: &str) {
        self.with(|inner, effects| {
            if inner.closed {
                return;
            }
            let revision = self.revision(inner, revision);
            let live_before = revision.live().next().is_some();
            revision.slots.retain(|slot| *slot.id != *id);
            revision.account.pod_gone(id);
            let live = revision.live().next().is_some();
            if live != live_before {
                revision.wake_anew();
            }
            if let Some(refusal) = revision.judge(Instant::now()) {
                let name = revision.name.clone();
                inner.refuse(&name, &refusal, effects);
            }
            inner.forget_spent();
            effects.kick = true;
        });
    }

    /// Whether pods that are wanted cannot be made, as the operator says, and why. That concerns those who wait for a
    /// revision that was woken and has no pod.
    pub fn pods_refused(self: &Arc<Self>, failure: Option<PodFailure>) {
        self.with(|inner, effects| {
            inner.pods_refused.clone_from(&failure);
            let Some(failure) = failure else { return };
            let now = Instant::now();
            let stuck = |r: &&mut Revision| r.slots.is_empty() && !r.queue.is_empty() && r.wake.acknowledged.is_some();
            let Some(revision) = inner.revisions.iter_mut().find(stuck) else { return };
            let refusal = revision.health.fail(now, failure);
            let name = revision.name.clone();
            inner.refuse(&name, &refusal, effects);
            effects.kick = true;
        });
    }

    /// What keeps a request waiting, if something is known.
    pub(super) fn obstacle(&self, sequence: u64) -> Option<PodFailure> {
        let inner = self.lock();
        let revision = inner.revisions.iter().find(|r| r.queue.contains_key(&sequence))?;
        let of_a_pod = || revision.live().find_map(|slot| slot.failure.clone());
        let of_all = || inner.pods_refused.clone().filter(|_| revision.slots.is_empty());
        of_a_pod().or_else(of_all)
    }

    /// A probe was answered.
    pub(crate) fn admitted(self: &Arc<Self>, endpoint: &Arc<Endpoint>) {
        self.with(|inner, effects| {
            let policy = self.policy();
            let now = Instant::now();
            for revision in &mut inner.revisions {
                let first_crowd = revision.first_crowd(now, &policy);
                if let Some(slot) = revision.slots.iter_mut().find(|slot| slot.is(endpoint)) {
                    slot.admit(now, first_crowd);
                    revision.failing = false;
                }
            }
            inner.pump_all(self, policy.limit, effects);
        });
    }

    /// A pod could not be connected to.
    pub(super) fn set_aside(self: &Arc<Self>, endpoint: &Arc<Endpoint>) {
        self.with(|inner, effects| {
            let slots = inner.revisions.iter_mut().flat_map(|r| &mut r.slots);
            if let Some(slot) = slots.into_iter().find(|slot| slot.is(endpoint) && slot.serving) {
                let delay = jitter(ASIDE, endpoint.set_back(), LONGEST_ASIDE);
                tracing::warn!(function = %self.id(), address = %endpoint.address, ?delay, "A pod cannot be connected to and is put aside");
                slot.serving = false;
                slot.probe_if_needed(delay, effects);
            }
        });
    }

    /// Lets a crowd in further.
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
                inner.pump(self, index, policy.limit, effects);
            }
        });
    }

    /// How a wake went.
    pub fn woken(self: &Arc<Self>, revision: &str, result: Result<(), WakeError>) {
        match &result {
            Ok(()) => tracing::info!(function = %self.id(), revision, "A function was woken"),
            Err(error @ WakeError::Awake) => {
                tracing::debug!(function = %self.id(), revision, %error, "A wake was not needed");
            }
            Err(error) => tracing::warn!(function = %self.id(), revision, %error, "A function was not woken"),
        }
        self.with(|inner, effects| inner.woken(Instant::now(), revision, result, effects));
    }
}

impl Probed for Gate {
    fn probe_succeeded(self: Arc<Self>, endpoint: &Arc<Endpoint>) {
        self.admitted(endpoint);
    }
}

impl Slot {
    fn is(&self, endpoint: &Arc<Endpoint>) -> bool {
        self.endpoint.as_ref().is_some_and(|e| Arc::ptr_eq(e, endpoint))
    }

    /// Starts a probe where one is needed and none is under way; ends it where none is.
    fn probe_if_needed(&mut self, delay: Duration, effects: &mut Effects) {
        let needed = !self.serving && !self.draining;
        match (&self.endpoint, &self.probe) {
            (Some(endpoint), None) if needed => {
                let stop = CancellationToken::new();
                effects.probes.push((endpoint.clone(), delay, stop.clone()));
                self.probe = Some(stop);
            }
            _ if !needed => self.end_probe(),
            _ => {}
        }
    }
}
