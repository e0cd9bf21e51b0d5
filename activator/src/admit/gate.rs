//! The gate of one Function.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Notify, futures::Notified, oneshot},
    time::Instant,
};

use super::{
    Budget, Full, Held, Lease, Policy, Refusal, Ticket,
    inner::{Effects, Inner},
    revision::{Revision, Waiter},
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
    policy: ArcSwap<Policy>,
    context: Arc<Context>,
    namespace_budget: Arc<Budget>,
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
    pub fn new(id: FunctionId, policy: Policy, namespace_budget: Arc<Budget>, context: Arc<Context>) -> Arc<Self> {
        let mut nameless = Revision::new("".into(), context.ledger.account(&id.namespace, &id.name, ""));
        nameless.percent = 100;
        let metrics = context.metrics.function(&id.namespace, &id.name);
        let inner = Mutex::new(Inner { revisions: vec![nameless], ..Inner::default() });
        Arc::new(Self {
            id,
            policy: ArcSwap::from_pointee(policy),
            context,
            namespace_budget,
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

    /// A request comes that would hold `bytes` while it waits.
    ///
    /// # Errors
    ///
    /// If it is turned away.
    pub fn enter(self: &Arc<Self>, bytes: u64) -> Result<Entered, Refusal> {
        self.arrive(bytes, None)
    }

    /// A request comes back that could not be sent to its pod. It keeps its place in the order, so it goes next.
    ///
    /// # Errors
    ///
    /// If it is turned away.
    pub fn enter_again(self: &Arc<Self>, bytes: u64, sequence: u64, arrived: Instant) -> Result<Entered, Refusal> {
        self.arrive(bytes, Some((sequence, arrived)))
    }

    fn arrive(self: &Arc<Self>, bytes: u64, back: Option<(u64, Instant)>) -> Result<Entered, Refusal> {
        let policy = self.policy.load();
        self.with(|inner, effects| {
            if inner.closed {
                return Err(Refusal::Deleted);
            }
            let now = Instant::now();
            let chosen = inner.choose();
            let (sequence, arrived) = back.unwrap_or_else(|| {
                inner.sequence += 1;
                (inner.sequence, now)
            });
            let Some(revision) = inner.revisions.get_mut(chosen) else { return Err(Refusal::Deleted) };
            if revision.queue.is_empty()
                && let Some(index) = revision.pick(policy.limit, false)
                && let Some(endpoint) = revision.slots[index].endpoint.clone()
            {
                endpoint.enter();
                revision.account.enter();
                let account = revision.account.clone();
                let lease =
                    Lease { gate: self.clone(), account, endpoint, sequence, arrived, cold: None, answered: false };
                return Ok(Entered::Now(lease));
            }
            let held_back = || revision.live().next().is_none().then(|| revision.health.holds_back(now)).flatten();
            let failing = if revision.failing { revision.health.refusal(now) } else { held_back() };
            if let Some(refusal) = failing {
                return Err(refusal);
            }
            let budgets = [&self.namespace_budget, &self.context.budget];
            let held = if back.is_some() {
                // It was let in before; a queue that has filled meanwhile does not cost it its place.
                Held::over(bytes, budgets)
            } else if inner.queued >= policy.queue_requests as usize {
                return Err(Refusal::QueueFull(Full::Requests));
            } else if inner.queued_bytes.saturating_add(bytes) > policy.queue_bytes {
                return Err(Refusal::QueueFull(Full::Bytes));
            } else {
                Held::take(bytes, budgets).ok_or(Refusal::QueueFull(Full::Shared))?
            };
            let (sender, answer) = oneshot::channel();
            revision.queue.insert(sequence, Waiter { answer: sender, arrived, held });
            revision.account.queue();
            inner.queued += 1;
            inner.queued_bytes += bytes;
            // A pod may have room for those that wait and not for one that comes anew, or the other way round.
            inner.pump(self, chosen, policy.limit, effects);
            effects.keeper = !std::mem::replace(&mut inner.keeper, true);
            effects.kick = inner.revisions.get(chosen).is_some_and(|r| r.queue.len() == 1);
            Ok(Entered::Later(Ticket { gate: self.clone(), sequence, answer, over: false }))
        })
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
                if let Some(slot) = revision
                    .slots
                    .iter_mut()
                    .find(|s| s.endpoint.as_ref().is_some_and(|e| std::ptr::eq(e.as_ref(), endpoint)))
                {
                    slot.widen(1);
                }
                inner.pump(self, index, self.policy.load().limit, effects);
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
            let limit = policy.limit;
            self.policy.store(Arc::new(policy));
            self.with(|inner, effects| inner.pump_all(self, limit, effects));
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
