//! The autoscaling algorithm: [`decide()`] computes the replica count of a revision from its demand, its pods, its policy
//! and the [`State`] of earlier decisions.
//!
//! The crate is pure: no Kubernetes client, no async runtime, no clock. Time is a [`Duration`] since any fixed origin and is
//! passed as an argument, so tests, the simulator and the operator run the same code.
//!
//! The algorithm is derived from the Knative pod autoscaler, which [`kpa`] implements as published, as a baseline. Demand
//! averaged over a long *stable* window sizes a steady load. A short *panic* window detects a sudden rise.
//!
//! The definition of demand differs. The published algorithm counts requests in pods and in the queue alike, so slow pod
//! starts make it request more and more pods. Here demand is work, by Little's law (J. D. C. Little, "A Proof for the
//! Queuing Formula L = λW", Operations Research 9(3), 1961): arrivals per second times the seconds that a request spends
//! *in a pod*. A backlog is work that has to be done once, and starting pods count as future capacity.
//!
//! Other differences: scaling to zero depends on the idle timeout alone and not on an average, a rise is detected earlier,
//! and the extra pods of a rise are removed differently.
//!
//! [`schedule`] computes the minimum of a schedule at a wall-clock time. [`IdleHistogram`] learns idle times for pre-warming.

pub mod kpa;
pub mod schedule;

mod decide;
mod history;
mod idle_histogram;
mod inline_ends_deque;
mod pod_starts;
mod reason;
mod service_time;
mod state;
mod throughput;
mod window_max;

pub use decide::decide;
pub use idle_histogram::{IdleHistogram, ParseIdleHistogramError, Window};
pub use reason::{Decision, Reason, Seen};
pub use state::{Learned, State};

use std::time::Duration;

/// Default for [`Policy::prewarm`]: the idle pod time that the published autoscaler spends to avoid one cold start.
pub const COLD_START_COST: Duration = Duration::from_secs(60);

/// The unit of [`Policy::target`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// Concurrent requests, queued or in a pod.
    #[default]
    Concurrency,
    /// Requests per second.
    Rps,
}

/// Autoscaling settings of a revision: the `spec.scaling` of its Function, plus the floors that apply at the moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Minimum number of pods.
    pub min: u32,
    /// Maximum number of pods. Takes precedence over every minimum.
    pub max: u32,
    /// Minimum number of pods until the revision is verified ready. 0 once it is verified ready or has failed.
    pub initial: u32,
    /// Minimum number of pods while a rollout is about to send requests to the revision; 0 otherwise. The pods are kept for
    /// the hold time of a rise afterwards, since demand does not show these requests before they arrive.
    pub held: u32,
    /// Whether a pod is starting that may still become ready. Until a pod could serve, the idle timeout does not run.
    pub starting: bool,
    /// Minimum number of pods of the active schedules, see [`schedule::active`]; 0 if none is active.
    pub scheduled: u32,
    /// Unit of `target`.
    pub metric: Metric,
    /// Target per pod, more than 0.
    pub target: f64,
    /// Maximum number of concurrent requests of a pod, `scaling.concurrencyLimit`; `None` if unlimited.
    pub limit: Option<u32>,
    /// Time without any request after which the last pod is removed.
    pub idle_timeout: Duration,
    /// Window of the average that sizes a steady load.
    pub stable_window: Duration,
    /// Window of the average that detects a sudden rise.
    pub panic_window: Duration,
    /// Time for which a lower count must persist before pods are removed.
    pub scale_down_delay: Duration,
    /// Pre-warming: `None` turns it off. The value is the idle pod time that avoiding one cold start is worth;
    /// [`COLD_START_COST`] is the default.
    pub prewarm: Option<Duration>,
    /// Whether the present count is kept unchanged.
    pub paused: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min: 0,
            max: 100,
            initial: 0,
            held: 0,
            starting: false,
            scheduled: 0,
            metric: Metric::Concurrency,
            target: 70.0,
            limit: None,
            idle_timeout: Duration::from_secs(30),
            stable_window: Duration::from_secs(60),
            panic_window: Duration::from_secs(6),
            scale_down_delay: Duration::ZERO,
            prewarm: None,
            paused: false,
        }
    }
}

/// Demand for one revision, summed over all activators. Every field below `queued` is a monotonic counter, which the
/// aggregation carries over activator restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Requests that are in pods.
    pub in_flight: u64,
    /// Requests that wait for a pod.
    pub queued: u64,
    /// Total requests received.
    pub arrivals: u64,
    /// Total requests completed in a pod.
    pub completions: u64,
    /// Total requests that left the queue without a pod. A client that times out and retries abandons every try but the
    /// last, so `arrivals - abandoned` counts its work once.
    pub abandoned: u64,
    /// Integral of `in_flight + queued` over time, in request-microseconds.
    pub request_us: u64,
    /// Integral of `in_flight` over time, in request-microseconds.
    pub busy_us: u64,
    /// Total in-pod time of the requests in `completions`, in microseconds.
    pub served_us: u64,
}

impl Demand {
    /// Requests in pods and in the queue.
    #[must_use]
    pub fn concurrency(&self) -> u64 {
        self.in_flight.saturating_add(self.queued)
    }

    /// Total requests that were not abandoned.
    pub(crate) fn work(&self) -> u64 {
        self.arrivals.saturating_sub(self.abandoned)
    }
}

/// Observed replica counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Replicas requested in the scale.
    pub desired: u32,
    /// Ready pods.
    pub ready: u32,
}
