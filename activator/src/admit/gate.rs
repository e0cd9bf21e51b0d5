//! The gate of one Function.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32},
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
    refusal::Refusal,
    state::{Bound, Effects, FunctionId, Gate, Inner, Revision},
};
use crate::{demand::Account, endpoints::Endpoint, metrics::FunctionMetrics, rate_limit::RateLimiter};
impl Gate {
    /// The gate of a Function without revisions and pods: whoever comes waits for them.
    #[must_use]
    pub fn new(id: FunctionId, policy: Policy, namespace: Arc<Namespace>, context: Arc<Context>) -> Arc<Self> {
        let mut nameless = Revision::new("".into(), context.ledger.account(&id.namespace, &id.name, ""));
        nameless.percent = 100;
        let metrics = context.metrics.function(&id.namespace, &id.name);
        let wakes = RateLimiter::new(context.bounds.function_wakes);
        let inner = Mutex::new(Inner::new(nameless, wakes));
        Arc::new(Self {
            id,
            policy: ArcSwap::from_pointee(policy),
            context,
            namespace,
            metrics,
            kick: Notify::new(),
            split: AtomicBool::new(false),
            copies: AtomicU32::new(0),
            inner,
        })
    }

    /// Which Function it stands for.
    #[must_use]
    pub fn id(&self) -> &FunctionId {
        &self.id
    }

    /// What the spec says.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// What every gate shares.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Its counts for operators.
    #[must_use]
    pub fn metrics(&self) -> &FunctionMetrics {
        &self.metrics
    }

    /// Copies of its requests that are under way.
    pub(crate) fn copies(&self) -> &AtomicU32 {
        &self.copies
    }

    /// A request left its pod.
    pub(super) fn release(self: &Arc<Self>, endpoint: &Endpoint, account: &Arc<Account>, answered: bool) {
        self.with(|inner, effects| {
            endpoint.leave();
            account.complete();
            let Some(index) = inner.revisions.iter().position(|r| Arc::ptr_eq(&r.account, account)) else { return };
            let revision = &mut inner.revisions[index];
            if answered {
                endpoint.answered();
                if revision.health.failed() {
                    revision.health.served();
                }
            }
            if !revision.queue.is_empty() {
                let policy = self.policy.load();
                revision.one_less(Instant::now(), endpoint, &policy);
                inner.pump(self, index, policy.limit, effects);
            }
        });
    }

    /// A request that waits is given up because of its revision's pods.
    pub(super) fn fail(&self, sequence: u64) {
        let inner = self.lock();
        if let Some(revision) = inner.revisions.iter().find(|r| r.queue.contains_key(&sequence)) {
            revision.account.ended(true, None);
        }
    }

    /// A request that waited left.
    pub(super) fn leave(self: &Arc<Self>, sequence: u64) {
        self.with(|inner, effects| {
            let gone = inner.revisions.iter_mut().find_map(|r| Some((r.queue.remove(&sequence)?, &r.account)));
            if let Some((waiter, account)) = gone {
                account.leave();
                inner.waiting.remove(&waiter.held);
                effects.kick = inner.waiting.requests == 0;
                if waiter.bound == Bound::Here {
                    // Its tag may lead elsewhere by now.
                    inner.forget_spent();
                }
            }
        });
    }

    /// What the spec says has changed.
    pub fn set_policy(self: &Arc<Self>, policy: Policy) {
        if **self.policy.load() != policy {
            self.with(|inner, effects| {
                let limit = policy.limit;
                inner.revisions.iter().for_each(|revision| revision.account.judge(policy.judged));
                self.policy.store(Arc::new(policy));
                inner.pump_all(self, limit, effects);
            });
        }
    }

    /// Its Function is gone: whoever waits is told so, whoever comes is too, and what is in a pod goes on.
    pub fn close(self: &Arc<Self>) {
        self.with(|inner, effects| {
            inner.closed = true;
            let names: Vec<_> = inner.revisions.iter().map(|r| r.name.clone()).collect();
            for name in names {
                inner.refuse(&name, &Refusal::Deleted, effects);
            }
            for revision in inner.revisions.drain(..) {
                revision.account.abandon();
            }
            effects.kick = true;
        });
    }

    /// Requests that wait now.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.lock().waiting.requests
    }

    /// Lets the keeper look again.
    pub(super) fn kick(&self) {
        self.kick.notify_one();
    }

    /// Completes when something has changed that the keeper may have to act on.
    pub fn kicked(&self) -> Notified<'_> {
        self.kick.notified()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    pub(super) fn revision<'a>(&self, inner: &'a mut Inner, name: &str) -> &'a mut Revision {
        let index = self.index_of(inner, name);
        &mut inner.revisions[index]
    }

    /// Where a revision stands, which is made if there is none of this name.
    pub(super) fn index_of(&self, inner: &mut Inner, name: &str) -> usize {
        inner.revisions.iter().position(|r| *r.name == *name).unwrap_or_else(|| {
            let account = self.context.ledger.account(&self.id.namespace, &self.id.name, name);
            account.judge(self.policy.load().judged);
            inner.revisions.push(Revision::new(name.into(), account));
            inner.revisions.len() - 1
        })
    }

    /// Decides under the lock, then does what was decided without it.
    pub(super) fn with<R>(self: &Arc<Self>, decide: impl FnOnce(&mut Inner, &mut Effects) -> R) -> R {
        let mut effects = Effects::default();
        let result = decide(&mut self.inner.lock(), &mut effects);
        effects.take_place(self);
        result
    }
}
