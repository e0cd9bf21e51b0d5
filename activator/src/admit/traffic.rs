//! Shares and tags: which revisions get which calls, and what becomes of those that wait when that changes.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use rand::Rng;
use rouse_crds::function::TrafficStatus;

use super::{
    state::{Bound, Gate, Inner, Waiter},
    target::{Affinity, Target},
};

impl Gate {
    /// Which revisions get which share of the calls, and which can be called by a tag.
    ///
    /// Whoever waits for one that has no share any more waits for another from now on, in the order in which they came; who
    /// called by a tag stays where the tag led. A status that names no shares says nothing new of them.
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
            // In the order of the status, which keeps those who are bound by a value where they are: see `choose`.
            let place = |name: &str| traffic.iter().position(|entry| entry.revision == name);
            inner.revisions.sort_by_key(|revision| place(&revision.name).unwrap_or(usize::MAX));
            let split = inner.revisions.iter().filter(|r| r.percent > 0).count() > 1;
            self.split.store(split, Ordering::Relaxed);
            inner.rehouse();
            inner.forget_spent();
            inner.pump_all(self, self.policy.load().limit, effects);
        });
    }

    /// Whether more than one revision has a share of the calls.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.split.load(Ordering::Relaxed)
    }

    /// The revision that a tag leads to.
    #[must_use]
    pub fn tagged(&self, tag: &str) -> Option<Arc<str>> {
        self.lock().tags.iter().find(|(name, _)| **name == *tag).map(|(_, revision)| revision.clone())
    }
}

impl Inner {
    /// The revision of a share for one more request.
    ///
    /// The shares stand one behind the other in the order of the status, and a value points at one place of their whole. So
    /// when one grows at the cost of its neighbour, only callers of that neighbour move, and only to the one that grows.
    pub(super) fn choose(&self, affinity: &Affinity) -> usize {
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
            // Below the total, as it is a part of it.
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

    /// Finds revisions for those who wait where no share of the calls goes any more.
    fn rehouse(&mut self) {
        let mut homeless: BTreeMap<u64, Waiter> = BTreeMap::new();
        for revision in self.revisions.iter_mut().filter(|r| r.percent == 0) {
            for (sequence, waiter) in std::mem::take(&mut revision.queue) {
                if waiter.bound == Bound::Here {
                    revision.queue.insert(sequence, waiter);
                } else {
                    revision.account.leave();
                    homeless.insert(sequence, waiter);
                }
            }
        }
        for (sequence, waiter) in homeless {
            let chosen = self.choose(&match waiter.bound {
                Bound::Value(value) => Affinity::Value(value),
                Bound::Here | Bound::Free => Affinity::None,
            });
            let revision = &mut self.revisions[chosen];
            revision.account.queue();
            revision.queue.insert(sequence, waiter);
        }
    }
}

impl Target {
    /// What binds a request of this target while it waits.
    pub(super) fn bound(&self) -> Bound {
        match self {
            Self::Shares { affinity: Affinity::Value(value) } => Bound::Value(*value),
            Self::Shares { .. } => Bound::Free,
            Self::Revision(_) | Self::Copy(_) => Bound::Here,
        }
    }
}

/// The share of an entry, in percent.
fn share(entry: &TrafficStatus) -> u32 {
    u32::try_from(entry.percent).unwrap_or(0).min(100)
}
