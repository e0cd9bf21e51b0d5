//! The ledger: how many requests each revision has, had, and for how long.
//!
//! A request touches the account of its revision and nothing else; reading walks all accounts, a few times a second at most.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use rouse_crds::demand::{FRAME_INTERVAL, HEARTBEAT, RevisionDemand};
use tokio::{sync::watch, time::Instant};

use super::{outcomes::Tally, pods::Pods};
use crate::endpoints::Endpoint;

/// How long a revision that is no longer needed is told after its last request: a reader that lost its connection comes back
/// meanwhile, and would else believe for ever what it heard last.
const TOLD_FOR: Duration = HEARTBEAT.saturating_mul(30);

/// Every revision that has been called in this process, or has had pods that go.
#[derive(Debug)]
pub struct Ledger {
    began: Instant,
    /// Counts changes; an account remembers the count at its last one.
    changes: AtomicU64,
    /// Moves when an idle revision is called, so that streams tell it at once.
    urgent: watch::Sender<u64>,
    accounts: RwLock<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    /// Bounded by the revisions of existing Functions that have been called.
    open: Vec<Arc<Account>>,
    /// Of revisions that are no longer needed. Bounded by those that have requests or were closed within [`TOLD_FOR`].
    closed: Vec<Arc<Account>>,
}

/// The counters of one revision.
#[derive(Debug)]
pub struct Account {
    ledger: Arc<Ledger>,
    namespace: Box<str>,
    function: Box<str>,
    revision: Box<str>,
    opened: AtomicBool,
    /// Its Function is gone.
    abandoned: AtomicBool,
    changed: AtomicU64,
    counters: Mutex<Counters>,
}

#[derive(Debug)]
struct Counters {
    in_flight: u64,
    queued: u64,
    /// Queued requests whose wake is not due.
    held: u64,
    /// Whether what is queued is held.
    holding: bool,
    arrivals: u64,
    completions: u64,
    abandoned: u64,
    request_us: u64,
    busy_us: u64,
    served_us: u64,
    /// The moment up to which `request_us` and `busy_us` are summed.
    summed: Instant,
    /// When the last request left.
    idle_since: Option<Instant>,
    /// When its revision was no longer needed.
    closed: Option<Instant>,
    pods: Pods,
    tally: Tally,
}

/// Accounts as of one moment.
#[derive(Debug)]
pub struct Reading {
    /// Microseconds since the ledger began.
    pub at_us: u64,
    /// Pass it to the next reading to get what changed since.
    pub mark: u64,
    /// Whether there are more accounts, which the next part of the report contains.
    pub more: bool,
    /// The accounts.
    pub revisions: Vec<RevisionDemand>,
}

/// The accounts that changed since a mark, read in parts. An account is read when its part is.
#[derive(Debug)]
pub struct Report {
    began: Instant,
    since: Option<u64>,
    mark: u64,
    /// Accounts that have not been read. 8 bytes each.
    accounts: std::vec::IntoIter<Arc<Account>>,
    /// The first account that did not fit into the previous part.
    next: Option<Arc<Account>>,
}

impl Ledger {
    /// An empty ledger that begins now.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            changes: AtomicU64::new(0),
            urgent: watch::channel(0).0,
            accounts: RwLock::default(),
        })
    }

    /// An account, which stands in the ledger from its first request on, or from when a pod of it goes. It is the former one of
    /// this revision while that is still told, as two of one name would gainsay each other.
    #[must_use]
    pub fn account(self: &Arc<Self>, namespace: &str, function: &str, revision: &str) -> Arc<Account> {
        let former = self.take_closed(namespace, function, revision);
        if let Some(former) = former.as_ref().filter(|former| !former.abandoned.load(Ordering::Acquire)) {
            former.counters.lock().closed = None;
            self.accounts.write().open.push(Arc::clone(former));
            return Arc::clone(former);
        }
        let account = Arc::new(Account {
            ledger: self.clone(),
            namespace: namespace.into(),
            function: function.into(),
            revision: revision.into(),
            opened: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            changed: AtomicU64::new(0),
            counters: Mutex::new(Counters {
                in_flight: 0,
                queued: 0,
                held: 0,
                holding: false,
                arrivals: 0,
                completions: 0,
                abandoned: 0,
                request_us: 0,
                busy_us: 0,
                served_us: 0,
                summed: Instant::now(),
                idle_since: None,
                closed: None,
                pods: Pods::default(),
                tally: Tally::default(),
            }),
        });
        if former.is_some() {
            // What is in the pods of a Function that is gone is not this one's, and whoever was told of it has to hear so.
            account.change(|_| ());
        }
        account
    }

    /// Tells of calls to idle revisions.
    #[must_use]
    pub fn urgent(&self) -> watch::Receiver<u64> {
        self.urgent.subscribe()
    }

    /// Begins a report of the accounts that changed since `mark`, or that have requests now (their request-seconds grow by
    /// themselves). With no mark, of every account.
    #[must_use]
    pub fn report(&self, mark: Option<u64>) -> Report {
        // Taken before the accounts are looked at: what changes meanwhile is told again next time, never missed.
        let next = self.changes.load(Ordering::Acquire);
        self.purge(Instant::now());
        // What waits for a Function without a revision waits for none that anybody could scale.
        let named = |account: &&Arc<Account>| !account.revision.is_empty();
        let accounts: Vec<_> = self.accounts.read().all().filter(named).cloned().collect();
        Report { began: self.began, since: mark, mark: next, accounts: accounts.into_iter(), next: None }
    }

    /// Returns a whole report; see [`Ledger::report`].
    #[must_use]
    pub fn read(&self, mark: Option<u64>) -> Reading {
        self.report(mark).next_part(usize::MAX)
    }

    /// Visits every account as it is now, for metrics: without its pods and outcomes.
    pub fn each(&self, mut visit: impl FnMut(&RevisionDemand)) {
        self.purge(Instant::now());
        for account in self.accounts.read().all() {
            let demand = account.demand(&account.counters.lock());
            visit(&demand);
        }
    }

    /// Forgets what has been told for long enough.
    fn purge(&self, now: Instant) {
        if !self.accounts.read().closed.is_empty() {
            self.accounts.write().closed.retain(|account| !account.counters.lock().is_told(now));
        }
    }

    fn take_closed(&self, namespace: &str, function: &str, revision: &str) -> Option<Arc<Account>> {
        if self.accounts.read().closed.is_empty() {
            return None;
        }
        let mut accounts = self.accounts.write();
        let same =
            |a: &Arc<Account>| *a.revision == *revision && *a.function == *function && *a.namespace == *namespace;
        let index = accounts.closed.iter().position(same)?;
        Some(accounts.closed.swap_remove(index))
    }
}

impl Report {
    /// Reads the next part: as many accounts as have at most `bytes` bytes in a frame, and at least one.
    #[must_use]
    pub fn next_part(&mut self, mut bytes: usize) -> Reading {
        let now = Instant::now();
        let mut revisions = vec![];
        while let Some(account) = self.next.take().or_else(|| self.accounts.next()) {
            let Some(demand) = account.read(self.since, now) else { continue };
            let size = demand.max_bytes();
            if size > bytes && !revisions.is_empty() {
                self.next = Some(account);
                break;
            }
            bytes = bytes.saturating_sub(size);
            revisions.push(demand);
        }
        let at_us = micros(now.saturating_duration_since(self.began));
        Reading { at_us, mark: self.mark, more: self.next.is_some(), revisions }
    }
}

impl Accounts {
    fn all(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.open.iter().chain(&self.closed)
    }
}

impl Account {
    /// Name of its revision.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// What is to be told of it, if it changed since `mark` or has requests.
    fn read(&self, mark: Option<u64>, now: Instant) -> Option<RevisionDemand> {
        let mut counters = self.counters.lock();
        let changed = mark.is_none_or(|mark| self.changed.load(Ordering::Acquire) > mark);
        (changed || counters.in_flight + counters.queued > 0).then(|| {
            counters.sum(now);
            RevisionDemand { pods: counters.pods.tell(), outcomes: counters.tally.tell(), ..self.demand(&counters) }
        })
    }

    /// A request came and waits.
    pub(crate) fn queue(self: &Arc<Self>) {
        self.change(|c| {
            if c.holding {
                c.held += 1;
            } else {
                c.arrivals += 1;
                c.queued += 1;
            }
        });
    }

    /// Sets whether what is queued is held: the rate limits of wakes allow no wake yet. To the autoscaler, requests that are
    /// held have not arrived, or it would start the pods that the limits delay.
    pub(crate) fn hold(self: &Arc<Self>, holding: bool) {
        if self.counters.lock().holding == holding {
            return;
        }
        self.change(|c| {
            c.holding = holding;
            if holding {
                c.held = std::mem::take(&mut c.queued);
                c.abandoned += c.held;
            } else {
                c.queued = std::mem::take(&mut c.held);
                c.arrivals += c.queued;
            }
        });
    }

    /// A request came and went straight to a pod.
    pub fn enter(self: &Arc<Self>) {
        self.enter_at(Instant::now());
    }

    /// Like [`Self::enter`]. Reading the clock is a notable part of the cost of a request, so the caller's time is taken.
    pub(crate) fn enter_at(self: &Arc<Self>, now: Instant) {
        self.change_at(now, |c| {
            c.arrivals += 1;
            c.in_flight += 1;
        });
    }

    /// A waiting request went to a pod.
    pub(crate) fn grant(self: &Arc<Self>) {
        self.change(|c| {
            if c.holding {
                c.held -= 1;
                c.arrivals += 1;
            } else {
                c.queued -= 1;
            }
            c.in_flight += 1;
        });
    }

    /// A waiting request ended without a pod, or waits elsewhere now.
    pub(crate) fn leave(self: &Arc<Self>) {
        self.change(|c| {
            if c.holding {
                c.held -= 1;
            } else {
                c.queued -= 1;
                c.abandoned += 1;
            }
        });
    }

    /// A request ended that was sent to a pod `in_pod` ago.
    pub fn complete(self: &Arc<Self>, in_pod: Duration) {
        self.complete_at(Instant::now(), in_pod);
    }

    /// Like [`Self::complete`], at the caller's time.
    pub(crate) fn complete_at(self: &Arc<Self>, now: Instant, in_pod: Duration) {
        self.change_at(now, |c| {
            c.in_flight -= 1;
            c.completions += 1;
            c.served_us = c.served_us.saturating_add(micros(in_pod));
        });
    }

    /// A request was given to a pod that cannot be connected to; it will be queued again.
    pub(crate) fn give_back(self: &Arc<Self>) {
        self.change(|c| {
            c.in_flight -= 1;
            c.abandoned += 1;
        });
    }

    /// A pod of it is there or has changed. Whether it gets nothing new is told, called or not.
    pub(crate) fn pod_seen(self: &Arc<Self>, id: &str, endpoint: Option<&Arc<Endpoint>>, draining: bool) {
        let news = self.counters.lock().pods.see(id, endpoint, draining);
        if news {
            self.change(|_| ());
        }
    }

    /// A pod of it is gone.
    pub(crate) fn pod_gone(self: &Arc<Self>, id: &str) {
        let news = self.counters.lock().pods.remove(id);
        if news {
            self.change(|_| ());
        }
    }

    /// Whether somebody judges by how its requests end.
    pub fn set_outcome_counting(&self, asked: bool) {
        self.counters.lock().tally.ask(asked);
    }

    /// A request ended, with the head of an answer after this time or without one. Counted if somebody judges by it.
    pub fn record_outcome(self: &Arc<Self>, failed: bool, latency: Option<Duration>) {
        let counted = self.counters.lock().tally.count(failed, latency);
        if counted {
            self.change(|_| ());
        }
    }

    /// Its revision is no longer needed. What it still has is told until it has ended, and then that it has nothing.
    pub(crate) fn close(self: &Arc<Self>) {
        let now = Instant::now();
        self.ledger.purge(now);
        let mut accounts = self.ledger.accounts.write();
        let Some(index) = accounts.open.iter().position(|account| Arc::ptr_eq(account, self)) else { return };
        let account = accounts.open.swap_remove(index);
        account.counters.lock().closed = Some(now);
        accounts.closed.push(account);
    }

    /// Its Function is gone, and its pods with it. It is told like one that is no longer needed: whoever was told of requests
    /// has to hear that they have ended, or a Function that is made anew under the name would seem to have them.
    pub(crate) fn abandon(self: &Arc<Self>) {
        if self.opened.load(Ordering::Acquire) {
            self.counters.lock().pods.remove_all();
            self.change(|_| ());
        }
        self.abandoned.store(true, Ordering::Release);
        self.close();
    }

    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Counters)) {
        self.change_at(Instant::now(), change);
    }

    fn change_at(self: &Arc<Self>, now: Instant, change: impl FnOnce(&mut Counters)) {
        // Before the change is counted: a reader that has seen the count must find the account.
        if !self.opened.load(Ordering::Relaxed) && !self.opened.swap(true, Ordering::AcqRel) {
            self.ledger.accounts.write().open.push(self.clone());
        }
        let urgent = {
            let mut counters = self.counters.lock();
            counters.sum(now);
            let (idle_before, empty_before) = (counters.is_idle(), counters.is_empty());
            change(&mut counters);
            let idle_after = counters.is_idle();
            if counters.is_empty() && !empty_before {
                counters.idle_since = Some(now);
            }
            // One caller after the other makes a revision idle between calls; that is no news while a frame is due anyhow.
            let news = counters.idle_since.is_none_or(|since| now.saturating_duration_since(since) >= FRAME_INTERVAL);
            // Counted while the account is locked, so that a reader sees the count with the change or neither.
            self.changed.store(self.ledger.changes.fetch_add(1, Ordering::AcqRel) + 1, Ordering::Release);
            idle_before && !idle_after && news
        };
        if urgent {
            self.ledger.urgent.send_modify(|n| *n += 1);
        }
    }

    fn demand(&self, counters: &Counters) -> RevisionDemand {
        RevisionDemand {
            namespace: self.namespace.to_string(),
            function: self.function.to_string(),
            revision: self.revision.to_string(),
            in_flight: counters.in_flight,
            queued: counters.queued,
            held: counters.held,
            arrivals: counters.arrivals,
            completions: counters.completions,
            abandoned: counters.abandoned,
            request_us: counters.request_us,
            busy_us: Some(counters.busy_us),
            served_us: counters.served_us,
            ..RevisionDemand::default()
        }
    }
}

impl Counters {
    /// Whether it has no requests that anybody may scale for.
    fn is_idle(&self) -> bool {
        self.in_flight + self.queued == 0
    }

    /// Whether it has no requests.
    fn is_empty(&self) -> bool {
        self.is_idle() && self.held == 0
    }

    /// Whether it is closed, and nothing has been in it for so long that every reader knows.
    fn is_told(&self, now: Instant) -> bool {
        let since = self.closed.map(|closed| closed.max(self.idle_since.unwrap_or(closed)));
        self.is_empty() && since.is_some_and(|since| now.saturating_duration_since(since) > TOLD_FOR)
    }

    fn sum(&mut self, now: Instant) {
        let passed = micros(now.saturating_duration_since(self.summed));
        self.request_us = self.request_us.saturating_add(passed.saturating_mul(self.in_flight + self.queued));
        self.busy_us = self.busy_us.saturating_add(passed.saturating_mul(self.in_flight));
        // Only whole microseconds are taken, so that many short steps lose nothing.
        self.summed += Duration::from_micros(passed);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
