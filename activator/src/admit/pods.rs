//! What a gate does when it hears of its pods.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rouse_crds::pod::PodFailure;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Gate, inner::Effects, slot::Slot};
use crate::{
    endpoints::{Endpoint, PodFacts},
    wake::{WakeError, jitter},
};

/// How long a pod is left alone that could not be connected to, at first and at most.
const ASIDE: Duration = Duration::from_millis(50);
const LONGEST_ASIDE: Duration = Duration::from_secs(5);

impl Gate {
    /// A pod of this Function is there, or has changed.
    pub fn pod_seen(self: &Arc<Self>, facts: &PodFacts) {
        let policy = self.policy();
        self.with(|inner, effects| {
            if inner.closed {
                return;
            }
            let now = Instant::now();
            let revision = self.revision(inner, &facts.revision);
            let somebody_waits = !revision.queue.is_empty();
            let live_before = revision.live().next().is_some();
            let index = revision.slots.iter().position(|slot| slot.id == facts.id).unwrap_or_else(|| {
                revision.slots.push(Slot::new(facts.id.clone()));
                revision.slots.len() - 1
            });
            let slot = &mut revision.slots[index];
            if facts.scheduled {
                slot.scheduled.get_or_insert(now);
            }
            let newly_failed = facts.failure.is_some() && slot.reported != facts.failure;
            if facts.failure.is_none() || newly_failed {
                slot.failure.clone_from(&facts.failure);
            }
            slot.reported.clone_from(&facts.failure);
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
            if newly_failed || (ready_before && !slot.ready) {
                // Its container is gone or says that it cannot: only an answer lets it serve again.
                slot.serving = false;
            }
            if slot.ready && !ready_before && !slot.draining {
                slot.admit(now, somebody_waits);
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

    /// No pod of a revision can be made, as the operator found. That is news only while somebody waits, the wake was taken,
    /// and there is no pod: the same words may be left over from another time.
    pub fn pods_refused(self: &Arc<Self>, failure: &PodFailure) {
        self.with(|inner, effects| {
            let now = Instant::now();
            let stuck = |r: &&mut super::revision::Revision| {
                r.slots.is_empty() && !r.queue.is_empty() && r.wake.acknowledged.is_some()
            };
            let Some(revision) = inner.revisions.iter_mut().find(stuck) else { return };
            let refusal = revision.health.fail(now, failure.clone());
            let name = revision.name.clone();
            inner.refuse(&name, &refusal, effects);
            effects.kick = true;
        });
    }

    /// A probe was answered.
    pub(crate) fn admitted(self: &Arc<Self>, endpoint: &Arc<Endpoint>) {
        let limit = self.policy().limit;
        self.with(|inner, effects| {
            let now = Instant::now();
            for revision in &mut inner.revisions {
                let somebody_waits = !revision.queue.is_empty();
                if let Some(slot) = revision.slots.iter_mut().find(|slot| slot.is(endpoint)) {
                    slot.admit(now, somebody_waits);
                    // It answers, whatever was said of it before.
                    slot.failure = None;
                    revision.failing = false;
                }
            }
            inner.pump_all(self, limit, effects);
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
        let limit = self.policy().limit;
        self.with(|inner, effects| {
            for index in 0..inner.revisions.len() {
                let revision = &mut inner.revisions[index];
                if revision.queue.is_empty() {
                    continue;
                }
                for slot in &mut revision.slots {
                    // Only where the last widening was used up.
                    if slot.load().is_some_and(|load| load >= slot.crowd) {
                        slot.widen(slot.crowd);
                    }
                }
                inner.pump(self, index, limit, effects);
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
