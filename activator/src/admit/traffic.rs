//! Traffic split: revisions by percentage and tag, and moving queued requests when it changes.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use rand::Rng;
use rouse_crds::function::TrafficStatus;

use super::{
    state::{Binding, Breaker, BreakerState, Waiter},
    target::{Affinity, Target},
};

impl Breaker {
    /// Sets the traffic percentages and tags.
    ///
    /// Requests that are queued for a revision without traffic move to another one, in the order of arrival. Requests
    /// that were sent to a tag stay. A status without traffic changes nothing.
    pub fn set_traffic(self: &Arc<Self>, traffic: &[TrafficStatus]) {
        if traffic.is_empty() {
            return;
        }
        self.with(|inner, effects| {
            if inner.closed {
                return;
            }
            let shared = traffic.iter().any(|entry| share(entry) > 0);
            for revision in &mut inner.revisions {
                revision.tagged = false;
                if shared {
                    revision.percent = 0;
                }
            }
            inner.tags.clear();
            for entry in traffic {
                let revision = self.revision(inner, &entry.revision);
                revision.percent += share(entry);
                if let Some(tag) = &entry.tag {
                    revision.tagged = true;
                    inner.tags.push((tag.as_str().into(), entry.revision.as_str().into()));
                }
            }
            // In the order of the status, which keeps clients with session affinity where they are: see
            // `choose_revision`.
            let place = |name: &str| traffic.iter().position(|entry| entry.revision == name);
            inner.revisions.sort_by_key(|revision| place(&revision.name).unwrap_or(usize::MAX));
            let split = inner.revisions.iter().filter(|r| r.percent > 0).count() > 1;
            self.split.store(split, Ordering::Relaxed);
            inner.move_queued();
            inner.remove_unused_revisions();
            inner.dispatch_all(self, self.policy.load().limit, effects);
        });
    }

    /// Whether more than one revision has traffic.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.split.load(Ordering::Relaxed)
    }

    /// Returns the revision that a tag points to.
    #[must_use]
    pub fn tagged(&self, tag: &str) -> Option<Arc<str>> {
        self.lock().tags.iter().find(|(name, _)| **name == *tag).map(|(_, revision)| revision.clone())
    }
}

impl BreakerState {
    /// Chooses the revision of one more request.
    ///
    /// The percentages are intervals in the order of the status, and an affinity value is a point in their sum. When
    /// one grows at the cost of its neighbour, only clients of that neighbour move, and only to the one that grows.
    pub(super) fn choose_revision(&self, affinity: &Affinity) -> usize {
        let total: u32 = self.revisions.iter().map(|r| r.percent).sum();
        let mut with_traffic = self.revisions.iter().enumerate().filter(|(_, r)| r.percent > 0);
        let Some((first, revision)) = with_traffic.next() else { return 0 };
        if revision.percent == total {
            return first;
        }
        if let Affinity::Revision(name) = affinity
            && let Some(same) = self.revisions.iter().position(|r| r.percent > 0 && r.name == *name)
        {
            return same;
        }
        let mut point = match affinity {
            // Less than the total, as it is a fraction of it.
            Affinity::Value(value) => ((u128::from(*value) * u128::from(total)) >> 64) as u32,
            _ => rand::rng().random_range(0..total),
        };
        for (index, revision) in self.revisions.iter().enumerate() {
            if point < revision.percent {
                return index;
            }
            point -= revision.percent;
        }
        first
    }

    /// Moves queued requests away from revisions that have no traffic any more.
    fn move_queued(&mut self) {
        let mut moving: BTreeMap<u64, Waiter> = BTreeMap::new();
        for revision in self.revisions.iter_mut().filter(|r| r.percent == 0) {
            for (sequence, waiter) in std::mem::take(&mut revision.queue) {
                if waiter.binding == Binding::Revision {
                    revision.queue.insert(sequence, waiter);
                } else {
                    revision.account.leave();
                    moving.insert(sequence, waiter);
                }
            }
        }
        for (sequence, waiter) in moving {
            let chosen = self.choose_revision(&match waiter.binding {
                Binding::Affinity(value) => Affinity::Value(value),
                Binding::Revision | Binding::Any => Affinity::None,
            });
            let revision = &mut self.revisions[chosen];
            revision.account.queue();
            revision.queue.insert(sequence, waiter);
        }
    }
}

impl Target {
    /// Returns where a request with this target may move while it is queued.
    pub(super) fn binding(&self) -> Binding {
        match self {
            Self::Traffic { affinity: Affinity::Value(value) } => Binding::Affinity(*value),
            Self::Traffic { .. } => Binding::Any,
            Self::Revision(_) | Self::Mirror(_) => Binding::Revision,
        }
    }
}

/// Returns the percentage of an entry.
fn share(entry: &TrafficStatus) -> u32 {
    u32::try_from(entry.percent).unwrap_or(0).min(100)
}
