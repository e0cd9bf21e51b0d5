//! What a gate knows and decides under its lock, and what is done about it once the lock is free.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use rouse_crds::pod::PodFailure;

use super::{Gate, Held, Lease, Refusal, cold::Milestones, revision::Revision, throttle::Throttle};
use crate::{endpoints::Endpoint, wake};

/// How one that waits is told what becomes of it.
pub(super) type Answer = oneshot::Sender<Result<Lease, Refusal>>;

/// What the gate decides from, under its lock.
#[derive(Debug)]
pub(super) struct Inner {
    /// Its Function is gone.
    pub(super) closed: bool,
    /// How many have come.
    pub(super) sequence: u64,
    /// Those with traffic in the order of the status, those with pods, and at first one without a name. Few.
    pub(super) revisions: Vec<Revision>,
    /// Tags and the revisions that they lead to.
    pub(super) tags: Vec<(Box<str>, Arc<str>)>,
    /// Over all revisions.
    pub(super) waiting: Waiting,
    /// A keeper runs.
    pub(super) keeper: bool,
    /// How often it may be woken.
    pub(super) wakes: Throttle,
    /// Why no pod of it can be made now, as the operator says.
    pub(super) pods_refused: Option<PodFailure>,
}

/// What waits at a gate.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// All of them.
    pub(super) requests: usize,
    /// Those among them that are copies, for which no room is kept.
    pub(super) copies: usize,
    /// What the others hold.
    pub(super) bytes: u64,
}

/// What is to be done once the lock is free: whoever is woken may come back at once.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) grants: Vec<(Answer, Lease)>,
    /// With whether it is a copy's.
    pub(super) refusals: Vec<(Answer, Refusal, bool)>,
    pub(super) probes: Vec<(Arc<Endpoint>, Duration, CancellationToken)>,
    /// A keeper is to be started.
    pub(super) keeper: bool,
    /// The keeper is to look again.
    pub(super) kick: bool,
}

impl Waiting {
    pub(super) fn add(&mut self, held: &Held) {
        self.requests += 1;
        self.copies += usize::from(held.is_nothing());
        self.bytes += held.bytes();
    }

    pub(super) fn remove(&mut self, held: &Held) {
        self.requests -= 1;
        self.copies -= usize::from(held.is_nothing());
        self.bytes -= held.bytes();
    }
}

impl Inner {
    pub(super) fn new(nameless: Revision, wakes: Throttle) -> Self {
        Self {
            closed: false,
            sequence: 0,
            revisions: vec![nameless],
            tags: vec![],
            waiting: Waiting::default(),
            keeper: false,
            wakes,
            pods_refused: None,
        }
    }

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
                entered: now,
                unsent: false,
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
                gate.metrics().turned_away(&refusal);
            }
            // Whoever has left meanwhile does not need to be told.
            drop(answer.send(Err(refusal)));
        }
        for (answer, lease) in self.grants {
            // A lease that nobody takes is given back by its drop, to the next in line.
            drop(answer.send(Ok(lease)));
        }
        for (endpoint, delay, stop) in self.probes {
            crate::endpoints::spawn_probe(Arc::downgrade(gate), endpoint, delay, stop);
        }
        if self.keeper {
            wake::spawn_keeper(gate.clone());
        } else if self.kick {
            gate.kick();
        }
    }
}
