//! One revision of a Function: its pods, and the requests that wait for one of them.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::{
    policy::Policy,
    refusal::Refusal,
    slot::{FIRST_CROWD, SMALL_LIMIT, Slot},
    state::Revision,
};
use crate::endpoints::Endpoint;

/// How long after the first pod of a wake the others are waited for before it gets more than its share. Pods that were
/// asked for together come within a second of one another where there is room for them.
const SPREAD: Duration = Duration::from_secs(1);

/// What one pod is wanted for, as the spec says.
fn share(policy: &Policy) -> u32 {
    // A float that does not fit saturates.
    (policy.target.ceil() as u32).max(1)
}

/// Two different numbers below `count`, which is more than one.
fn two_of(count: usize, random: &mut impl Rng) -> [usize; 2] {
    let first = random.random_range(0..count);
    [first, (first + random.random_range(1..count)) % count]
}

impl Revision {
    /// Pods that are there or on their way, and are not going.
    pub(super) fn live(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| !slot.draining)
    }

    /// A pod for one more request: with a small limit the first that has room, else the less loaded of two.
    pub(super) fn pick(&self, limit: Option<u32>, waited: bool) -> Option<usize> {
        let room = |index: &usize| self.slots[*index].has_room(limit, waited);
        let count = self.slots.len();
        if count > 1 && limit.is_none_or(|limit| limit > SMALL_LIMIT) {
            let found =
                two_of(count, &mut rand::rng()).into_iter().filter(room).min_by_key(|index| self.slots[*index].load());
            // Both may be full or going while another has room.
            found.or_else(|| (0..count).filter(room).min_by_key(|index| self.slots[*index].load()))
        } else {
            (0..count).find(room)
        }
    }

    /// Sees whether all its pods fail; the first time they do is a failure of the revision.
    pub(super) fn judge(&mut self, now: Instant) -> Option<Refusal> {
        let failing = self.live().next().is_some() && self.live().all(|slot| slot.fails(now));
        let news = failing && !self.failing;
        self.failing = failing;
        let failure = self.live().find_map(|slot| slot.failure.clone()).filter(|_| news)?;
        Some(self.health.fail(now, failure))
    }

    /// How many of those that wait a pod gets that begins to serve; `None` if nobody waits.
    pub(super) fn first_crowd(&self, now: Instant, policy: &Policy) -> Option<u32> {
        let others_come = self.spreads(now, policy, 1);
        let most = if others_come { FIRST_CROWD.min(share(policy)) } else { FIRST_CROWD };
        (!self.queue.is_empty()).then_some(most)
    }

    /// Whether those that wait are kept for pods that are about to serve: more were asked for, and the first of them serves
    /// since a moment ago only. With a limit each pod is safe from a crowd as it is. `beginning` pods begin to serve just now.
    fn spreads(&self, now: Instant, policy: &Policy, beginning: usize) -> bool {
        let serving = || self.live().filter(|slot| slot.serving);
        let first = serving().filter_map(|slot| slot.admitted).min();
        policy.limit.is_none()
            && serving().count() + beginning < self.live().count().max(self.wake.asked as usize)
            && first.is_none_or(|first| now.saturating_duration_since(first) < SPREAD)
    }

    /// A request left a pod while others wait: there is room for that one, and for one more.
    pub(super) fn one_less(&mut self, now: Instant, endpoint: &Endpoint, policy: &Policy) {
        let most = if self.spreads(now, policy, 0) { share(policy) } else { u32::MAX };
        let this = |slot: &&mut Slot| slot.endpoint.as_ref().is_some_and(|e| std::ptr::eq(e.as_ref(), endpoint));
        if let Some(slot) = self.slots.iter_mut().find(this) {
            slot.widen(1, most);
        }
    }

    /// Time passes while requests wait: a pod that has all that it may have of them may have twice as many.
    pub(super) fn ramp(&mut self, now: Instant, policy: &Policy) {
        let most = if self.spreads(now, policy, 0) { share(policy) } else { u32::MAX };
        for slot in &mut self.slots {
            if slot.load().is_some_and(|load| load >= slot.crowd) {
                slot.widen(slot.crowd, most);
            }
        }
    }

    /// Nobody waits any more: whoever comes now goes straight to a pod.
    pub(super) fn crowd_is_in(&mut self) {
        for slot in &mut self.slots {
            slot.crowd = u32::MAX;
        }
    }

    /// Whether nothing is left that it is needed for.
    pub(super) fn spent(&self) -> bool {
        self.percent == 0 && !self.tagged && self.slots.is_empty() && self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_are_two_and_every_pair_comes() {
        let mut seen = std::collections::BTreeSet::new();
        let mut random = rand::rng();
        for _ in 0..1000 {
            let [a, b] = two_of(3, &mut random);
            assert!(a != b && a < 3 && b < 3, "{a} {b}");
            seen.insert((a, b));
        }
        assert_eq!(seen.len(), 6);
    }
}
