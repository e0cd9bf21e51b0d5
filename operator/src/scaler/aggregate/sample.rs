//! Last report of one activator about one revision, and the part of its counters that counts as demand.

use std::time::Duration;

use rouse_crds::demand::{PodDemand, RevisionDemand};

/// Report of an activator about one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodReport {
    /// The activator has requests in pods of the revision and does not report in which.
    Unknown,
    /// The pod is not in the report: it has no request, and the activator does not know it or has not seen its mark yet.
    Absent,
    /// The pod is in the report.
    Present {
        /// Requests in the pod.
        in_flight: u64,
        /// Whether the activator sends no new requests to it.
        draining: bool,
    },
}

/// Last report about a revision.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Duration,
    pub(super) in_flight: u64,
    pub(super) queued: u64,
    /// Queued requests whose wake is not due; no part of the demand.
    pub(super) held: u64,
    /// Number of the first report that contained the revision, or after which it was reported.
    pub(super) report: u64,
    /// Counters since the start of the process, as of `at`.
    reported: Counters,
    /// Part of these counters that is excluded from demand.
    excluded: Counters,
    /// Bounded by the size of a frame.
    pub(super) pods: Box<[PodDemand]>,
}

/// Monotonic counters; see [`RevisionDemand`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) arrivals: u64,
    pub(super) completions: u64,
    pub(super) abandoned: u64,
    pub(super) request_us: u64,
    pub(super) busy_us: u64,
    pub(super) served_us: u64,
}

impl Counters {
    /// Without a separate in-pod time (older activators), the time in queue and pod together is used.
    fn of(demand: &RevisionDemand) -> Self {
        Self {
            arrivals: demand.arrivals,
            completions: demand.completions,
            abandoned: demand.abandoned,
            request_us: demand.request_us,
            busy_us: demand.busy_us.unwrap_or(demand.request_us),
            served_us: if demand.busy_us.is_some() { demand.served_us } else { demand.request_us },
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        *self = self.zip(&other, u64::saturating_add);
    }

    fn minus(&self, other: &Self) -> Self {
        self.zip(other, u64::saturating_sub)
    }

    /// Returns the maximum of each counter.
    pub(super) fn max(&self, other: &Self) -> Self {
        self.zip(other, u64::max)
    }

    fn zip(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            arrivals: f(self.arrivals, other.arrivals),
            completions: f(self.completions, other.completions),
            abandoned: f(self.abandoned, other.abandoned),
            request_us: f(self.request_us, other.request_us),
            busy_us: f(self.busy_us, other.busy_us),
            served_us: f(self.served_us, other.served_us),
        }
    }
}

impl Sample {
    /// Creates a sample as of `at`. `continuous` is whether frames of the process arrived without a pause since
    /// `former`, or, without `former`, since a frame that did not contain the revision. After a pause the sample starts at zero:
    /// the caller retains what `former` counted by then.
    ///
    /// Counts from a pause are excluded: they grew over time that is past, and to an operator that just started they would
    /// look like a thousand requests at once. One arrival is kept, since a revision that received a request is not idle.
    pub(super) fn new(
        at: Duration,
        report: u64,
        demand: RevisionDemand,
        former: Option<&Self>,
        continuous: bool,
    ) -> Self {
        let counters = Counters::of(&demand);
        let RevisionDemand { in_flight, queued, held, pods, .. } = demand;
        let excluded = match former {
            Some(former) if former.is_ahead_of(&counters) => Counters::default(),
            Some(former) if continuous => former.excluded,
            Some(former) => {
                let arrived = counters.arrivals.saturating_sub(former.reported.arrivals).min(1);
                Counters { arrivals: counters.arrivals.saturating_sub(arrived), ..counters }
            }
            None if continuous => Counters::default(),
            None => Counters { arrivals: counters.arrivals.saturating_sub(1), ..counters },
        };
        Self { at, in_flight, queued, held, report, reported: counters, excluded, pods: pods.into() }
    }

    /// Returns whether `counters` are lower than the reported ones: the process restarted them, because the revision lost
    /// its traffic and regained it.
    pub(super) fn is_ahead_of(&self, counters: &Counters) -> bool {
        counters.arrivals < self.reported.arrivals || counters.request_us < self.reported.request_us
    }

    /// Returns whether `demand` restarts the counters; see [`Self::is_ahead_of`].
    pub(super) fn is_restarted_by(&self, demand: &RevisionDemand) -> bool {
        self.is_ahead_of(&Counters::of(demand))
    }

    /// Returns the requests since the start of the process.
    pub(super) fn arrivals(&self) -> u64 {
        self.reported.arrivals
    }

    /// Excludes all reported counts and requests.
    pub(super) fn exclude_all(&mut self) {
        self.excluded = self.reported;
        (self.in_flight, self.queued, self.held, self.pods) = (0, 0, 0, Box::default());
    }

    /// Returns the counters that count as demand, as of the sample.
    pub(super) fn counted(&self) -> Counters {
        self.reported.minus(&self.excluded)
    }

    /// Returns the counters that count as demand, extrapolated to `now`.
    pub(super) fn counted_at(&self, now: Duration) -> Counters {
        self.extrapolated(now).minus(&self.excluded)
    }

    /// Like [`Self::counted_at`], for a process that terminated at `now`: its requests ended then.
    pub(super) fn terminated_at(&self, now: Duration) -> Counters {
        let counters = self.counted_at(now);
        Counters {
            completions: counters.completions.saturating_add(self.in_flight),
            abandoned: counters.abandoned.saturating_add(self.queued),
            served_us: counters.busy_us,
            ..counters
        }
    }

    /// Returns the counters of the process at `now`, if no request arrived or ended since.
    fn extrapolated(&self, now: Duration) -> Counters {
        let elapsed = u64::try_from(now.saturating_sub(self.at).as_micros()).unwrap_or(u64::MAX);
        let grow = |sum: u64, requests: u64| sum.saturating_add(elapsed.saturating_mul(requests));
        Counters {
            request_us: grow(self.reported.request_us, self.in_flight.saturating_add(self.queued)),
            busy_us: grow(self.reported.busy_us, self.in_flight),
            ..self.reported
        }
    }

    /// Returns the report about one pod.
    pub(super) fn pod(&self, pod: &str) -> PodReport {
        match self.pods.iter().find(|p| p.pod == pod) {
            Some(PodDemand { in_flight, draining, .. }) => {
                PodReport::Present { in_flight: *in_flight, draining: *draining }
            }
            None if self.pods.is_empty() && self.in_flight > 0 => PodReport::Unknown,
            None => PodReport::Absent,
        }
    }
}
