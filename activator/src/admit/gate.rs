//! The gate of one Function.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::{
    Lease, Namespace, Policy, Refusal, Ticket,
    inner::{Effects, Inner},
    revision::Revision,
    throttle::Throttle,
};
use crate::{context::Context, demand::Account, endpoints::Endpoint, metrics::FunctionMetrics};

/// Which Function, of which generation: one that was deleted and made again has another `uid`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FunctionId {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// `metadata.uid`.
    pub uid: Box<str>,
}

/// The gate of one Function.
#[derive(Debug)]
pub struct Gate {
    id: FunctionId,
    pub(super) policy: ArcSwap<Policy>,
    pub(super) context: Arc<Context>,
    pub(super) namespace: Arc<Namespace>,
    metrics: FunctionMetrics,
    /// Tells the keeper that something has changed.
    kick: Notify,
    inner: Mutex<Inner>,
}

/// What became of a request that came.
#[derive(Debug)]
pub enum Entered {
    /// It has a place in a pod.
    Now(Lease),
    /// It waits.
    Later(Ticket),
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Gate {
    /// The gate of a Function without revisions and pods: whoever comes waits for them.
    #[must_use]
    pub fn new(id: FunctionId, policy: Policy, namespace: Arc<Namespace>, context: Arc<Context>) -> Arc<Self> {
        let mut nameless = Revision::new("".into(), context.ledger.account(&id.namespace, &id.name, ""));
        nameless.percent = 100;
        let metrics = context.metrics.function(&id.namespace, &id.name);
        let wakes = Throttle::new(context.bounds.function_wakes);
        let inner = Mutex::new(Inner::new(nameless, wakes));
        Arc::new(Self {
            id,
            policy: ArcSwap::from_pointee(policy),
            context,
            namespace,
            metrics,
            kick: Notify::new(),
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

    /// A request that waited left.
    pub(super) fn leave(self: &Arc<Self>, sequence: u64) {
        self.with(|inner, effects| {
            let gone = inner.revisions.iter_mut().find_map(|r| Some((r.queue.remove(&sequence)?, &r.account)));
            if let Some((waiter, account)) = gone {
                account.leave();
                inner.queued -= 1;
                inner.queued_bytes -= waiter.held.bytes();
                effects.kick = inner.queued == 0;
            }
        });
    }

    /// What the spec says has changed.
    pub fn set_policy(self: &Arc<Self>, policy: Policy) {
        if **self.policy.load() != policy {
            self.with(|inner, effects| {
                let limit = policy.limit;
                self.policy.store(Arc::new(policy));
                inner.pump_all(self, limit, effects);
            });
        }
    }

    /// Which revisions get which share of the calls. Whoever waits for one that gets none any more waits for another from
    /// now on, in the order in which they came.
    pub fn set_traffic(self: &Arc<Self>, traffic: &[(Box<str>, u32)]) {
        if traffic.iter().all(|(_, percent)| *percent == 0) {
            // A status that lost its traffic says nothing new; what was known stands.
            return;
        }
        self.with(|inner, effects| {
            if inner.closed {
                return;
            }
            for revision in &mut inner.revisions {
                revision.percent = 0;
            }
            for (name, percent) in traffic {
                self.revision(inner, name).percent += percent;
            }
            let mut homeless = std::collections::BTreeMap::new();
            for revision in inner.revisions.iter_mut().filter(|r| r.percent == 0) {
                (0..revision.queue.len()).for_each(|_| revision.account.leave());
                homeless.append(&mut revision.queue);
            }
            for (sequence, waiter) in homeless {
                let chosen = inner.choose();
                let revision = &mut inner.revisions[chosen];
                revision.account.queue();
                revision.queue.insert(sequence, waiter);
            }
            inner.forget_spent();
            inner.pump_all(self, self.policy.load().limit, effects);
        });
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
                revision.account.close();
            }
            effects.kick = true;
        });
    }

    /// Requests that wait now.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.lock().queued
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
        let index = inner.revisions.iter().position(|r| *r.name == *name).unwrap_or_else(|| {
            let account = self.context.ledger.account(&self.id.namespace, &self.id.name, name);
            inner.revisions.push(Revision::new(name.into(), account));
            inner.revisions.len() - 1
        });
        &mut inner.revisions[index]
    }

    /// Decides under the lock, then does what was decided without it.
    pub(super) fn with<R>(self: &Arc<Self>, decide: impl FnOnce(&mut Inner, &mut Effects) -> R) -> R {
        let mut effects = Effects::default();
        let result = decide(&mut self.inner.lock(), &mut effects);
        effects.take_place(self);
        result
    }
}
