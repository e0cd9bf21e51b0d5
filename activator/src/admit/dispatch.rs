//! Dispatch: gives those that wait the room there is, and does what was decided under the lock once that is free.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    cold::Milestones,
    state::{Effects, Gate, Inner, Lease},
    wake_task,
};

impl Inner {
    /// Gives those that wait for a revision what room there is, first come, first served.
    pub(super) fn pump(&mut self, gate: &Arc<Gate>, index: usize, limit: Option<u32>, effects: &mut Effects) {
        let Some(revision) = self.revisions.get_mut(index) else { return };
        let now = Instant::now();
        while !revision.queue.is_empty() {
            let Some(slot) = revision.pick(limit, true) else { return };
            let slot = &revision.slots[slot];
            let (Some(endpoint), Some((sequence, waiter))) = (slot.endpoint.clone(), revision.queue.pop_first()) else {
                return;
            };
            let admitted = slot.admitted.unwrap_or(now);
            let seen = Milestones {
                parked: waiter.arrived,
                woken: revision.wake.acknowledged,
                scheduled: slot.scheduled,
                started: slot.started,
                admitted,
            };
            endpoint.enter();
            revision.account.grant();
            self.waiting.remove(&waiter.held);
            let lease = Lease {
                gate: gate.clone(),
                account: revision.account.clone(),
                endpoint,
                sequence,
                arrived: waiter.arrived,
                cold: (admitted > waiter.arrived).then(|| seen.cold_start(now)),
                answered: false,
                given: None,
            };
            effects.grants.push((waiter.answer, lease));
        }
        revision.crowd_is_in();
    }

    pub(super) fn pump_all(&mut self, gate: &Arc<Gate>, limit: Option<u32>, effects: &mut Effects) {
        for index in 0..self.revisions.len() {
            if !self.revisions[index].queue.is_empty() {
                self.pump(gate, index, limit, effects);
            }
        }
        effects.kick = true;
    }

    /// Forgets revisions that have neither traffic nor pods.
    pub(super) fn forget_spent(&mut self) {
        self.revisions.retain(|revision| {
            let spent = revision.spent();
            if spent {
                revision.account.close();
            }
            !spent
        });
    }
}

impl Effects {
    pub(super) fn take_place(self, gate: &Arc<Gate>) {
        for (answer, refusal, copy) in self.refusals {
            if !copy {
                gate.metrics().turned_away(refusal.reason());
            }
            // Whoever has left meanwhile does not need to be told.
            drop(answer.send(Err(refusal)));
        }
        for (answer, lease) in self.grants {
            // A lease that nobody takes is given back by its drop, to the next in line.
            drop(answer.send(Ok(lease)));
        }
        for (endpoint, delay, stop) in self.probes {
            gate.context.prober.spawn(Arc::downgrade(gate), endpoint, delay, stop);
        }
        if self.keeper {
            wake_task::spawn(gate.clone());
        } else if self.kick {
            gate.kick();
        }
    }
}
