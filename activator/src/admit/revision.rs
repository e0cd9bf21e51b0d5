//! One revision of a Function: choice of a pod, ramp, and failure.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::{
    pod_tracker::{INITIAL_RAMP, PodTracker, SMALL_LIMIT},
    policy::Policy,
    rejection::Rejection,
    state::Revision,
};
use crate::endpoints::Endpoint;

/// How long after the first pod of a wake the others are waited for before it gets more than its target. Pods that were
/// requested together start within about a second of each other if nodes have capacity.
const SPREAD: Duration = Duration::from_secs(1);

/// Returns the target concurrency of one pod.
fn share(policy: &Policy) -> u32 {
    // A float that does not fit saturates.
    (policy.target.ceil() as u32).max(1)
}

/// Returns two different numbers below `count`, which is more than one.
fn two_of(count: usize, random: &mut impl Rng) -> [usize; 2] {
    let first = random.random_range(0..count);
    [first, (first + random.random_range(1..count)) % count]
}

impl Revision {
    /// Returns the pods that are not being removed.
    pub(super) fn live(&self) -> impl Iterator<Item = &PodTracker> {
        self.trackers.iter().filter(|tracker| !tracker.draining)
    }

    /// Picks a pod for one more request: with a small limit the first that has capacity, otherwise the less loaded of
    /// two random ones.
    pub(super) fn pick(&self, limit: Option<u32>, waited: bool) -> Option<usize> {
        let has_capacity = |index: &usize| self.trackers[*index].has_capacity(limit, waited);
        let count = self.trackers.len();
        if count > 1 && limit.is_none_or(|limit| limit > SMALL_LIMIT) {
            let found = two_of(count, &mut rand::rng())
                .into_iter()
                .filter(has_capacity)
                .min_by_key(|index| self.trackers[*index].load());
            // Both may be full or draining while another pod has capacity.
            found.or_else(|| (0..count).filter(has_capacity).min_by_key(|index| self.trackers[*index].load()))
        } else {
            (0..count).find(has_capacity)
        }
    }

    /// Checks whether all pods fail. Returns a rejection the first time they do.
    pub(super) fn check_failing(&mut self, now: Instant) -> Option<Rejection> {
        let failing = self.live().next().is_some() && self.live().all(|tracker| tracker.is_failing(now));
        let newly_failing = failing && !self.failing;
        self.failing = failing;
        let failure = self.live().find_map(|tracker| tracker.failure.clone()).filter(|_| newly_failing)?;
        Some(self.health.record_failure(now, failure))
    }

    /// Returns the number of queued requests that a pod gets when it begins to serve; `None` if the queue is empty.
    pub(super) fn initial_ramp(&self, now: Instant, policy: &Policy) -> Option<u32> {
        let others_come = self.is_spreading(now, policy, 1);
        let most = if others_come { INITIAL_RAMP.min(share(policy)) } else { INITIAL_RAMP };
        (!self.queue.is_empty()).then_some(most)
    }

    /// Whether queued requests are kept for pods that are about to serve: more pods were requested, and the first of
    /// them has served for a moment only. With a concurrency limit no pod can be overloaded. `beginning` pods begin to
    /// serve now.
    fn is_spreading(&self, now: Instant, policy: &Policy, beginning: usize) -> bool {
        let serving = || self.live().filter(|tracker| tracker.serving);
        let first = serving().filter_map(|tracker| tracker.serving_since).min();
        policy.limit.is_none()
            && serving().count() + beginning < self.live().count().max(self.wake.asked as usize)
            && first.is_none_or(|first| now.saturating_duration_since(first) < SPREAD)
    }

    /// Handles a request that left a pod while others are queued: there is capacity for that one, and for one more.
    pub(super) fn request_ended(&mut self, now: Instant, endpoint: &Endpoint, policy: &Policy) {
        let most = if self.is_spreading(now, policy, 0) { share(policy) } else { u32::MAX };
        let this =
            |tracker: &&mut PodTracker| tracker.endpoint.as_ref().is_some_and(|e| std::ptr::eq(e.as_ref(), endpoint));
        if let Some(tracker) = self.trackers.iter_mut().find(this) {
            tracker.raise_ramp(1, most);
        }
    }

    /// Doubles the ramp limit of each pod that has reached it. Called at intervals while requests are queued.
    pub(super) fn ramp(&mut self, now: Instant, policy: &Policy) {
        let most = if self.is_spreading(now, policy, 0) { share(policy) } else { u32::MAX };
        for tracker in &mut self.trackers {
            if tracker.load().is_some_and(|load| load >= tracker.ramp_limit) {
                tracker.raise_ramp(tracker.ramp_limit, most);
            }
        }
    }

    /// Ends the ramp: the queue is empty, and new requests go straight to a pod.
    pub(super) fn end_ramp(&mut self) {
        for tracker in &mut self.trackers {
            tracker.ramp_limit = u32::MAX;
        }
    }

    /// Whether the revision has no traffic, tag, pods or queued requests.
    pub(super) fn is_unused(&self) -> bool {
        self.percent == 0 && !self.tagged && self.trackers.is_empty() && self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_picks_distinct_numbers_and_every_pair() {
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
