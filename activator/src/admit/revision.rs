//! One revision of a Function: its pods, and the requests that wait for one of them.

use std::{collections::BTreeMap, sync::Arc};

use rand::Rng;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Held, Lease, Refusal,
    health::Health,
    slot::{SMALL_LIMIT, Slot},
};
use crate::demand::Account;

/// One revision of a Function.
#[derive(Debug)]
pub(super) struct Revision {
    /// Its name, also of its Deployment. Empty as long as the Function has none: requests wait then.
    pub(super) name: Box<str>,
    /// Its share of the calls.
    pub(super) percent: u32,
    /// Who waits, by the order in which they came. Bounded by the queue limits of the Function.
    pub(super) queue: BTreeMap<u64, Waiter>,
    /// Its pods. Bounded by what the cluster runs.
    pub(super) slots: Vec<Slot>,
    /// Its counters.
    pub(super) account: Arc<Account>,
    /// What is known of its failures.
    pub(super) health: Health,
    /// All its pods fail.
    pub(super) failing: bool,
    /// When it is woken next.
    pub(super) wake: Wake,
}

/// When a revision is woken next.
#[derive(Debug, Default)]
pub(super) struct Wake {
    /// Not before.
    pub(super) next: Option<Instant>,
    /// Patches since the last pod was seen or gone.
    pub(super) tries: u32,
    /// When the API server last took a patch, or said that none was needed.
    pub(super) acknowledged: Option<Instant>,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) answer: oneshot::Sender<Result<Lease, Refusal>>,
    pub(super) arrived: Instant,
    /// What it holds of the caps; given back when it goes.
    pub(super) held: Held,
}

impl Revision {
    pub(super) fn new(name: Box<str>, account: Arc<Account>) -> Self {
        Self {
            name,
            percent: 0,
            queue: BTreeMap::new(),
            slots: vec![],
            account,
            health: Health::default(),
            failing: false,
            wake: Wake::default(),
        }
    }

    /// Pods that are there or on their way, and are not going.
    pub(super) fn live(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| !slot.draining)
    }

    /// A pod for one more request: with a small limit the first that has room, else the less loaded of two.
    pub(super) fn pick(&self, limit: Option<u32>, waited: bool) -> Option<usize> {
        let room = |index: &usize| self.slots[*index].has_room(limit, waited);
        let count = self.slots.len();
        if count > 1 && limit.is_none_or(|limit| limit > SMALL_LIMIT) {
            let mut random = rand::rng();
            let two = [random.random_range(0..count), random.random_range(0..count)];
            let found = two.into_iter().filter(room).min_by_key(|index| self.slots[*index].load());
            // Both may be full or going while another has room.
            found.or_else(|| (0..count).filter(room).min_by_key(|index| self.slots[*index].load()))
        } else {
            (0..count).find(room)
        }
    }

    /// Sees whether all its pods fail; the first time they do is a failure of the revision.
    pub(super) fn judge(&mut self, now: Instant) -> Option<Refusal> {
        let failing = self.live().next().is_some() && self.live().all(Slot::fails);
        let news = failing && !self.failing;
        self.failing = failing;
        let failure = self.live().find_map(|slot| slot.failure.clone()).filter(|_| news)?;
        Some(self.health.fail(now, failure))
    }

    /// Nobody waits any more: whoever comes now goes straight to a pod.
    pub(super) fn crowd_is_in(&mut self) {
        for slot in &mut self.slots {
            slot.crowd = u32::MAX;
        }
    }

    /// Whether nothing is left that it is needed for.
    pub(super) fn spent(&self) -> bool {
        self.percent == 0 && self.slots.is_empty() && self.queue.is_empty()
    }
}
