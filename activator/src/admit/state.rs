//! The state of the gate of one Function: what its lock protects, and what is handed out from it.
//!
//! These types name one another, so they are defined in one place; what is done with them is beside.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rouse_crds::pod::PodFailure;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    budget::Held, cold::ColdStart, context::Context, health::Health, namespace::Namespace, policy::Policy,
    refusal::Refusal, slot::Slot,
};
use crate::{demand::Account, endpoints::Endpoint, metrics::FunctionMetrics, rate_limit::RateLimiter};

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
    pub(super) id: FunctionId,
    pub(super) policy: ArcSwap<Policy>,
    pub(super) context: Arc<Context>,
    pub(super) namespace: Arc<Namespace>,
    pub(super) metrics: Arc<FunctionMetrics>,
    /// Tells the keeper that something has changed.
    pub(super) kick: Notify,
    /// More than one revision has a share of the calls.
    pub(super) split: AtomicBool,
    /// Copies of its requests that are under way.
    pub(super) copies: AtomicU32,
    pub(super) inner: Mutex<Inner>,
}

/// What became of a request that came.
#[derive(Debug)]
pub enum Entered {
    /// It has a place in a pod.
    Now(Lease),
    /// It waits.
    Later(Ticket),
}

/// A place in a pod. The request is counted there until this is dropped, which has to be after the end of the response body.
#[derive(Debug)]
pub struct Lease {
    pub(super) gate: Arc<Gate>,
    pub(super) account: Arc<Account>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) sequence: u64,
    pub(super) arrived: Instant,
    pub(super) cold: Option<ColdStart>,
    pub(super) answered: bool,
    /// When it was given to its pod, while somebody judges by how that ends.
    pub(super) given: Option<Instant>,
}

/// A place in the queue. Dropping it gives the place up.
#[derive(Debug)]
pub struct Ticket {
    pub(super) gate: Arc<Gate>,
    pub(super) sequence: u64,
    pub(super) answer: oneshot::Receiver<Result<Lease, Refusal>>,
    pub(super) over: bool,
}

/// How one that waits is told what becomes of it.
pub(super) type Answer = oneshot::Sender<Result<Lease, Refusal>>;

/// What the gate decides from, under its lock.
#[derive(Debug)]
pub(super) struct Inner {
    /// Its Function is gone.
    pub(super) closed: bool,
    /// How many have come.
    pub(super) sequence: u64,
    /// Those with traffic in the order of the status, those with pods, and at first one without a name. Few.
    pub(super) revisions: Vec<Revision>,
    /// Tags and the revisions that they lead to.
    pub(super) tags: Vec<(Box<str>, Arc<str>)>,
    /// Over all revisions.
    pub(super) waiting: Waiting,
    /// A keeper runs.
    pub(super) keeper: bool,
    /// How often it may be woken.
    pub(super) wakes: RateLimiter,
    /// Why no pod of it can be made now, as the operator says.
    pub(super) pods_refused: Option<PodFailure>,
}

/// What waits at a gate.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// All of them.
    pub(super) requests: usize,
    /// Those among them that are copies, for which no room is kept.
    pub(super) copies: usize,
    /// What the others hold.
    pub(super) bytes: u64,
}

/// What is to be done once the lock is free: whoever is woken may come back at once.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) grants: Vec<(Answer, Lease)>,
    /// With whether it is a copy's.
    pub(super) refusals: Vec<(Answer, Refusal, bool)>,
    pub(super) probes: Vec<(Arc<Endpoint>, Duration, CancellationToken)>,
    /// A keeper is to be started.
    pub(super) keeper: bool,
    /// The keeper is to look again.
    pub(super) kick: bool,
}

/// One revision of a Function.
#[derive(Debug)]
pub(super) struct Revision {
    /// Its name, also of its Deployment. Empty as long as the Function has none: requests wait then.
    pub(super) name: Box<str>,
    /// Its share of the calls.
    pub(super) percent: u32,
    /// It can be called by a tag.
    pub(super) tagged: bool,
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
    /// From when on the throttles allow the next wake; taken once for each wake that succeeds.
    pub(super) permit: Option<Instant>,
    /// How many pods were asked for last.
    pub(super) asked: u32,
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
    /// Where it may go if its revision loses its share of the calls.
    pub(super) bound: Bound,
}

/// Where a request that waits may go if its revision loses its share of the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Nowhere: it was called by a tag.
    Here,
    /// Where this value points.
    Value(u64),
    /// Anywhere.
    Free,
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Waiting {
    pub(super) fn add(&mut self, held: &Held) {
        self.requests += 1;
        self.copies += usize::from(held.is_nothing());
        self.bytes += held.bytes();
    }

    pub(super) fn remove(&mut self, held: &Held) {
        self.requests -= 1;
        self.copies -= usize::from(held.is_nothing());
        self.bytes -= held.bytes();
    }
}

impl Inner {
    pub(super) fn new(nameless: Revision, wakes: RateLimiter) -> Self {
        Self {
            closed: false,
            sequence: 0,
            revisions: vec![nameless],
            tags: vec![],
            waiting: Waiting::default(),
            keeper: false,
            wakes,
            pods_refused: None,
        }
    }
}

impl Revision {
    pub(super) fn new(name: Box<str>, account: Arc<Account>) -> Self {
        Self {
            name,
            percent: 0,
            tagged: false,
            queue: BTreeMap::new(),
            slots: vec![],
            account,
            health: Health::default(),
            failing: false,
            wake: Wake::default(),
        }
    }
}
