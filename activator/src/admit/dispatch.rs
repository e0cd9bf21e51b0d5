//! Dispatch: grants free slots to queued requests, and applies the effects of a decision after the lock is released.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    cold_start::Milestones,
    state::{Breaker, BreakerState, Effects, Permit},
    wake_task,
};

impl BreakerState {
    /// Grants the free slots of a revision's pods to its queue, first in first out.
    pub(super) fn dispatch(&mut self, breaker: &Arc<Breaker>, index: usize, limit: Option<u32>, effects: &mut Effects) {
        let Some(revision) = self.revisions.get_mut(index) else { return };
        let now = Instant::now();
        while !revision.queue.is_empty() {
            let Some(tracker) = revision.pick(limit, true) else { return };
            let tracker = &revision.trackers[tracker];
            let (Some(endpoint), Some((sequence, waiter))) = (tracker.endpoint.clone(), revision.queue.pop_first())
            else {
                return;
            };
            let admitted = tracker.serving_since.unwrap_or(now);
            let seen = Milestones {
                parked: waiter.arrived,
                woken: revision.wake.acknowledged,
                scheduled: tracker.scheduled,
                started: tracker.started,
                admitted,
            };
            endpoint.start_request();
            revision.account.grant();
            self.waiting.remove(&waiter.reservation);
            let permit = Permit {
                breaker: breaker.clone(),
                account: revision.account.clone(),
                endpoint,
                sequence,
                arrived: waiter.arrived,
                cold: (admitted > waiter.arrived).then(|| Box::new(seen.cold_start(now))),
                responded: false,
                granted: now,
                unsent: false,
                sent_at: None,
            };
            effects.grants.push((waiter.sender, permit));
        }
        revision.end_ramp();
    }

    pub(super) fn dispatch_all(&mut self, breaker: &Arc<Breaker>, limit: Option<u32>, effects: &mut Effects) {
        for index in 0..self.revisions.len() {
            if !self.revisions[index].queue.is_empty() {
                self.dispatch(breaker, index, limit, effects);
            }
        }
        effects.notify = true;
    }

    /// Removes revisions that have neither traffic nor pods nor queued requests.
    pub(super) fn remove_unused_revisions(&mut self) {
        self.revisions.retain(|revision| {
            let spent = revision.is_unused();
            if spent {
                revision.account.close();
            }
            !spent
        });
    }
}

impl Effects {
    #[inline]
    pub(super) fn apply(self, breaker: &Arc<Breaker>) {
        // Most requests find a free slot and have no effects.
        let quiet = self.grants.is_empty() && self.rejections.is_empty() && self.probes.is_empty();
        if !quiet || self.start_wake_task || self.notify {
            self.apply_all(breaker);
        }
    }

    fn apply_all(self, breaker: &Arc<Breaker>) {
        for (sender, rejection, copy) in self.rejections {
            if !copy {
                breaker.metrics().record_rejected(rejection.reason());
            }
            // The client may have disconnected.
            drop(sender.send(Err(rejection)));
        }
        for (sender, permit) in self.grants {
            // A permit whose ticket was dropped is released by its own drop, and its slot goes to the next in the
            // queue.
            drop(sender.send(Ok(permit)));
        }
        for probe in self.probes {
            breaker.context.prober.spawn(Arc::downgrade(breaker), probe);
        }
        if self.start_wake_task {
            wake_task::spawn(breaker.clone());
        } else if self.notify {
            breaker.notify();
        }
    }
}
