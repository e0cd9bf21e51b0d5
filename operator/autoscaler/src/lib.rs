//! How many pods should a revision have? [`decide()`] answers from what is known now and what was known before.
//!
//! Nothing here knows Kubernetes, a runtime or a clock. Time is a [`Duration`] since any fixed origin and comes in as an
//! argument, so that a test, a simulator and the operator run the same code.
//!
//! The algorithm grew from the published Knative pod autoscaler, which is in [`kpa`] as it is published, to be measured
//! against: demand averaged over a long *stable* window sizes a steady load, and a short *panic* window sees a sudden rise.
//! It differs in what demand is. The published algorithm counts requests in pods and in the queue alike, so that pods that
//! start late make it ask for more pods, without end. Here demand is work, by Little's law (J. D. C. Little, "A Proof for
//! the Queuing Formula L = λW", Operations Research 9(3), 1961): arrivals per second times the seconds that a request spends
//! *in a pod*. A backlog is work that has to be done once, and pods that are starting are capacity that is coming.
//! It differs as well where a function can be at zero (going there is a matter of the idle timeout alone and not of an
//! average), in how soon it accepts a rise, and in how it lets go of one.
//!
//! [`schedule`] says what a schedule wants at a wall-clock time; [`Habits`] learn when a function is called.

pub mod kpa;
pub mod schedule;

mod decide;
mod ends;
mod habits;
mod history;
mod peaks;
mod reason;
mod service;
mod starts;
mod state;

pub use decide::decide;
pub use habits::{Habits, NotHabits, Window};
pub use reason::{Decision, Reason, Seen};
pub use state::{Learned, State};

use std::time::Duration;

/// The idle time that the published autoscaler spends on avoiding a start.
pub const PRICE: Duration = Duration::from_secs(60);

/// What the target counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// Requests at once, waiting or in a pod.
    #[default]
    Concurrency,
    /// Requests a second.
    Rps,
}

/// What the Function asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Never fewer pods.
    pub min: u32,
    /// Never more pods. Wins over everything else.
    pub max: u32,
    /// Never fewer pods while the revision is being proven. The caller sets it to 0 once it is proven, or has failed.
    pub initial: u32,
    /// Never fewer pods while calls are about to be led to the revision, and for as long afterwards as a rise is held: until
    /// they are there, nothing but this says that they come. 0 while none are.
    pub held: u32,
    /// Never fewer pods while a schedule is on; see [`schedule::active`]. 0 while none is.
    pub scheduled: u32,
    /// What `target` counts.
    pub metric: Metric,
    /// Wanted per pod, more than 0.
    pub target: f64,
    /// The most requests that a pod takes at once, `scaling.concurrencyLimit`; `None` if there is no limit.
    pub limit: Option<u32>,
    /// How long without any request until the last pod goes.
    pub idle_timeout: Duration,
    /// The time over which demand is averaged to size a steady load.
    pub stable_window: Duration,
    /// The time over which demand is averaged to see a sudden rise.
    pub panic_window: Duration,
    /// How long a lower count has to be wanted before pods go.
    pub scale_down_delay: Duration,
    /// Whether idle times are learned, and a pod is started or kept when a call is likely soon: what a start that a caller
    /// has to wait for is worth, in the time of a pod that waits for nobody. [`PRICE`] is a fair one.
    pub prewarm: Option<Duration>,
    /// Whether the count is left alone, whatever it is.
    pub paused: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            min: 0,
            max: 100,
            initial: 0,
            held: 0,
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

/// Demand for one revision, summed over all activators. Everything below `queued` is a counter that never goes back: the
/// caller carries it over the restart of an activator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Requests in pods now.
    pub in_flight: u64,
    /// Requests that wait for a pod now.
    pub queued: u64,
    /// Requests that came, ever.
    pub arrivals: u64,
    /// Requests that ended in a pod, ever.
    pub completions: u64,
    /// Requests that left the queue without a pod, ever. Of a client that times out and tries again each try but the last is
    /// one, so that `arrivals - abandoned` counts its work once.
    pub abandoned: u64,
    /// Integral of `in_flight + queued` over time, in request-microseconds.
    pub request_us: u64,
    /// Integral of `in_flight` over time, in request-microseconds.
    pub busy_us: u64,
    /// In-pod time of the requests in `completions`, summed, in microseconds.
    pub served_us: u64,
}

impl Demand {
    /// Requests that want a pod now.
    #[must_use]
    pub fn concurrency(&self) -> u64 {
        self.in_flight.saturating_add(self.queued)
    }

    /// Requests that came and did not leave without a pod, ever: what is work.
    pub(crate) fn work(&self) -> u64 {
        self.arrivals.saturating_sub(self.abandoned)
    }
}

/// The pods that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Asked for now.
    pub desired: u32,
    /// Ready now.
    pub ready: u32,
}
