//! The state of one breaker: what its lock protects, and the permits and tickets that it grants.
//!
//! These types refer to each other, so they are defined in one file. Their methods are in the files beside it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rouse_crds::pod::PodFailure;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    budget::QueueReservation, cold_start::ColdStart, context::Context, health::Health, namespace::Namespace,
    pod_tracker::PodTracker, policy::Policy, rejection::Rejection, wake_tokens::Tokens,
};
use crate::{
    demand::Account,
    endpoints::{Endpoint, ProbeRequest},
    function_id::FunctionId,
    metrics::FunctionMetrics,
    rate_limit::RateLimiter,
};

/// The breaker of one Function: a queue in front of its pods that enforces their concurrency limit.
#[derive(Debug)]
pub struct Breaker {
    pub(super) id: FunctionId,
    pub(super) policy: ArcSwap<Policy>,
    pub(super) context: Arc<Context>,
    pub(super) namespace: Arc<Namespace>,
    pub(super) metrics: Arc<FunctionMetrics>,
    /// Notifies the wake task of a change.
    pub(super) changed: Notify,
    /// More than one revision has traffic.
    pub(super) split: AtomicBool,
    /// Mirrored requests in flight.
    pub(super) mirrored: AtomicU32,
    pub(super) inner: Mutex<BreakerState>,
}

/// Result of admission.
#[derive(Debug)]
pub enum Admission {
    /// The request has a slot in a pod.
    Granted(Permit),
    /// The request is queued.
    Queued(Ticket),
}

/// A concurrency slot of a pod. Released on drop, which has to be after the end of the response body.
#[derive(Debug)]
pub struct Permit {
    pub(super) breaker: Arc<Breaker>,
    pub(super) account: Arc<Account>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) sequence: u64,
    pub(super) arrived: Instant,
    /// Boxed, as it is rare, and a permit is moved several times.
    pub(super) cold: Option<Box<ColdStart>>,
    pub(super) responded: bool,
    /// When the permit was granted.
    pub(super) granted: Instant,
    /// The pod could not be connected to, so nothing of the request was sent.
    pub(super) unsent: bool,
    /// When the request was sent to the pod; set only while outcomes are counted.
    pub(super) sent_at: Option<Instant>,
}

/// A position in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Ticket {
    pub(super) breaker: Arc<Breaker>,
    pub(super) sequence: u64,
    pub(super) receiver: oneshot::Receiver<Result<Permit, Rejection>>,
    pub(super) done: bool,
}

/// Sends a queued request its permit or its rejection.
pub(super) type GrantSender = oneshot::Sender<Result<Permit, Rejection>>;

/// What a breaker decides from, under its lock.
#[derive(Debug)]
pub(super) struct BreakerState {
    /// The Function was deleted.
    pub(super) closed: bool,
    /// Number of requests so far.
    pub(super) sequence: u64,
    /// Revisions with traffic in the order of the status, then those with pods; at first one without a name. Few.
    pub(super) revisions: Vec<Revision>,
    /// Tags and the revisions that they point to.
    pub(super) tags: Vec<(Box<str>, Arc<str>)>,
    /// What is queued, over all revisions.
    pub(super) waiting: Waiting,
    /// The wake task is running.
    pub(super) wake_task_running: bool,
    /// Rate limit of wakes.
    pub(super) wakes: RateLimiter,
    /// When a wake last succeeded.
    pub(super) last_wake: Option<Instant>,
    /// Why no pod can be created, as the operator reports.
    pub(super) pod_creation_failure: Option<PodFailure>,
    /// Why there is no revision with traffic, as the operator reports: the spec is invalid, or its objects were rejected.
    pub(super) build_failure: Option<PodFailure>,
}

/// What is queued at a breaker.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// All requests.
    pub(super) requests: usize,
    /// Mirrored requests among them, which count against no cap.
    pub(super) mirrored: usize,
    /// Bytes that the others hold.
    pub(super) bytes: u64,
}

/// What to do after the lock is released: a task that is woken up may lock again at once.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) grants: Vec<(GrantSender, Permit)>,
    /// Each with whether it is for a mirrored request.
    pub(super) rejections: Vec<(GrantSender, Rejection, bool)>,
    pub(super) probes: Vec<ProbeRequest>,
    /// Start the wake task.
    pub(super) start_wake_task: bool,
    /// Notify the wake task.
    pub(super) notify: bool,
}

/// One revision of a Function.
#[derive(Debug)]
pub(super) struct Revision {
    /// Name of the revision and of its Deployment. Empty until the Function has one: requests are queued then.
    pub(super) name: Box<str>,
    /// Traffic percentage.
    pub(super) percent: u32,
    /// A tag points to it.
    pub(super) tagged: bool,
    /// Queued requests in the order of arrival. Bounded by the queue limits of the Function.
    pub(super) queue: BTreeMap<u64, Waiter>,
    /// Its pods. Bounded by what the cluster runs.
    pub(super) trackers: Vec<PodTracker>,
    /// Its counters of demand.
    pub(super) account: Arc<Account>,
    /// Its failure state.
    pub(super) health: Health,
    /// All its pods fail.
    pub(super) failing: bool,
    /// State of its wake.
    pub(super) wake: Wake,
}

/// State of the wake of a revision.
#[derive(Debug, Default)]
pub(super) struct Wake {
    /// No patch is sent before this time.
    pub(super) next: Option<Instant>,
    /// The tokens that it has for the next wake. They are taken once for each wake that succeeds.
    pub(super) tokens: Tokens,
    /// The Deployment was scaled, and no pod of it has been seen yet.
    pub(super) awaits_pod: bool,
    /// Number of pods that the last patch asked for.
    pub(super) asked: u32,
    /// Patches since a pod was last created or deleted.
    pub(super) tries: u32,
    /// When the API server last accepted a patch, or reported that none was needed.
    pub(super) acknowledged: Option<Instant>,
}

/// A queued request.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) sender: oneshot::Sender<Result<Permit, Rejection>>,
    pub(super) arrived: Instant,
    /// What it holds of the caps.
    pub(super) reservation: QueueReservation,
    /// Where it may move if its revision loses its traffic.
    pub(super) binding: Binding,
}

/// Where a queued request may move if its revision loses its traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// Nowhere: it was sent to a tag.
    Revision,
    /// To the revision that this value selects.
    Affinity(u64),
    /// To any revision.
    Any,
}

impl Waiting {
    pub(super) fn add(&mut self, reservation: &QueueReservation) {
        self.requests += 1;
        self.mirrored += usize::from(reservation.is_none());
        self.bytes += reservation.bytes();
    }

    pub(super) fn remove(&mut self, reservation: &QueueReservation) {
        self.requests -= 1;
        self.mirrored -= usize::from(reservation.is_none());
        self.bytes -= reservation.bytes();
    }
}

impl BreakerState {
    pub(super) fn new(nameless: Revision, wakes: RateLimiter) -> Self {
        Self {
            closed: false,
            sequence: 0,
            revisions: vec![nameless],
            tags: vec![],
            waiting: Waiting::default(),
            wake_task_running: false,
            wakes,
            last_wake: None,
            pod_creation_failure: None,
            build_failure: None,
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
            trackers: vec![],
            account,
            health: Health::default(),
            failing: false,
            wake: Wake::default(),
        }
    }
}
