//! The breaker of one Function: construction, release of permits, policy changes and shutdown.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::{
    context::Context,
    namespace::Namespace,
    policy::Policy,
    rejection::Rejection,
    state::{Binding, Breaker, BreakerState, Effects, Revision},
};
use crate::{
    demand::Account, endpoints::Endpoint, function_id::FunctionId, metrics::FunctionMetrics, rate_limit::RateLimiter,
};
impl Breaker {
    /// Creates the breaker of a Function that has no revisions and no pods yet: requests are queued.
    #[must_use]
    pub fn new(id: FunctionId, policy: Policy, namespace: Arc<Namespace>, context: Arc<Context>) -> Arc<Self> {
        let mut nameless = Revision::new("".into(), context.ledger.account(&id.key.namespace, &id.key.name, ""));
        nameless.percent = 100;
        let metrics = context.metrics.function(&id.key);
        let wakes = RateLimiter::new(context.bounds.function_wakes);
        let inner = Mutex::new(BreakerState::new(nameless, wakes));
        Arc::new(Self {
            id,
            policy: ArcSwap::from_pointee(policy),
            context,
            namespace,
            metrics,
            changed: Notify::new(),
            split: AtomicBool::new(false),
            mirrored: AtomicU32::new(0),
            inner,
        })
    }

    /// Returns which Function it is for.
    #[must_use]
    pub fn id(&self) -> &FunctionId {
        &self.id
    }

    /// Returns what the spec says about requests.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Returns what all breakers share.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Returns the counters of the Function.
    #[must_use]
    pub fn metrics(&self) -> &FunctionMetrics {
        &self.metrics
    }

    /// Number of mirrored requests in flight.
    pub(crate) fn mirrored(&self) -> &AtomicU32 {
        &self.mirrored
    }

    /// Releases the slot of a request whose permit was dropped, and grants it to the next in the queue. `in_pod` is the time
    /// in the pod until `now`, or `None` if the request could not be sent to it.
    pub(super) fn release(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        account: &Arc<Account>,
        responded: bool,
        now: Instant,
        in_pod: Option<Duration>,
    ) {
        self.with(|inner, effects| {
            endpoint.end_request();
            match in_pod {
                Some(in_pod) => account.complete_at(now, in_pod),
                None => account.give_back(),
            }
            let Some(index) = inner.revisions.iter().position(|r| Arc::ptr_eq(&r.account, account)) else { return };
            let revision = &mut inner.revisions[index];
            if responded {
                endpoint.reset_connect_failures();
                if revision.health.has_failed() {
                    revision.health.reset();
                }
            }
            if !revision.queue.is_empty() {
                let policy = self.policy.load();
                revision.request_ended(now, endpoint, &policy);
                inner.dispatch(self, index, policy.limit, effects);
            }
        });
    }

    /// Counts a queued request as failed because of its revision's pods.
    pub(super) fn record_failure(&self, sequence: u64) {
        let inner = self.lock();
        if let Some(revision) = inner.revisions.iter().find(|r| r.queue.contains_key(&sequence)) {
            revision.account.record_outcome(true, None);
        }
    }

    /// Removes a request from the queue whose ticket was dropped.
    pub(super) fn leave(self: &Arc<Self>, sequence: u64) {
        self.with(|inner, effects| {
            let gone = inner.revisions.iter_mut().find_map(|r| Some((r.queue.remove(&sequence)?, &r.account)));
            if let Some((waiter, account)) = gone {
                account.leave();
                inner.waiting.remove(&waiter.reservation);
                effects.notify = inner.waiting.requests == 0;
                if waiter.binding == Binding::Revision {
                    // The tag of the revision may point to another one by now.
                    inner.remove_unused_revisions();
                }
            }
        });
    }

    /// Replaces the policy after the spec has changed.
    pub fn set_policy(self: &Arc<Self>, policy: Policy) {
        if **self.policy.load() != policy {
            self.with(|inner, effects| {
                let limit = policy.limit;
                inner
                    .revisions
                    .iter()
                    .for_each(|revision| revision.account.set_outcome_counting(policy.count_outcomes));
                self.policy.store(Arc::new(policy));
                inner.dispatch_all(self, limit, effects);
            });
        }
    }

    /// Closes the breaker of a deleted Function: queued and new requests are rejected, requests in pods go on.
    pub fn close(self: &Arc<Self>) {
        self.with(|inner, effects| {
            inner.closed = true;
            let names: Vec<_> = inner.revisions.iter().map(|r| r.name.clone()).collect();
            for name in names {
                inner.refuse(&name, &Rejection::Deleted, effects);
            }
            for revision in inner.revisions.drain(..) {
                revision.account.abandon();
            }
            effects.notify = true;
        });
    }

    /// Number of queued requests.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.lock().waiting.requests
    }

    /// Wakes up the wake task.
    pub(super) fn notify(&self) {
        self.changed.notify_one();
    }

    /// Completes when something has changed that the wake task may have to act on.
    pub fn notified(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BreakerState> {
        self.inner.lock()
    }

    pub(super) fn revision<'a>(&self, inner: &'a mut BreakerState, name: &str) -> &'a mut Revision {
        let index = self.index_of(inner, name);
        &mut inner.revisions[index]
    }

    /// Returns the index of a revision, which is added if it is new.
    pub(super) fn index_of(&self, inner: &mut BreakerState, name: &str) -> usize {
        inner.revisions.iter().position(|r| *r.name == *name).unwrap_or_else(|| {
            let account = self.context.ledger.account(&self.id.key.namespace, &self.id.key.name, name);
            account.set_outcome_counting(self.policy.load().count_outcomes);
            inner.revisions.push(Revision::new(name.into(), account));
            inner.revisions.len() - 1
        })
    }

    /// Runs `decide` under the lock, and applies the effects after the lock is released.
    pub(super) fn with<R>(self: &Arc<Self>, decide: impl FnOnce(&mut BreakerState, &mut Effects) -> R) -> R {
        let mut effects = Effects::default();
        let result = decide(&mut self.inner.lock(), &mut effects);
        effects.apply(self);
        result
    }
}
