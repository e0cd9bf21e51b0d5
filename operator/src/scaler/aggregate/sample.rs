//! What one activator said of one revision last, and how much of it counts.

use std::time::Duration;

use rouse_crds::demand::{PodDemand, RevisionDemand};

/// What an activator says of a pod that is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It has requests for the revision, and does not say in which pods.
    Mute,
    /// It says nothing of this pod: it has nothing in it, and has not heard yet that it is to go, or does not know it.
    Unnamed,
    /// It has so many requests in it, and sends it nothing new if `draining`.
    Named {
        /// Requests in it.
        in_flight: u64,
        /// Whether it sends nothing new there.
        draining: bool,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Duration,
    pub(super) in_flight: u64,
    pub(super) queued: u64,
    /// What the process has counted since it began, as of `at`.
    told: Counters,
    /// What of these counters does not count here.
    aside: Counters,
    /// As many as the frame held.
    pub(super) pods: Box<[PodDemand]>,
}

/// Counters that only grow; see [`RevisionDemand`].
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
    /// An activator that does not report in-pod time apart is taken at its time in queue and pod together.
    fn of(told: &RevisionDemand) -> Self {
        Self {
            arrivals: told.arrivals,
            completions: told.completions,
            abandoned: told.abandoned,
            request_us: told.request_us,
            busy_us: told.busy_us.unwrap_or(told.request_us),
            served_us: if told.busy_us.is_some() { told.served_us } else { told.request_us },
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        *self = self.with(&other, u64::saturating_add);
    }

    fn less(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    /// The higher of each.
    pub(super) fn max(&self, other: &Self) -> Self {
        self.with(other, u64::max)
    }

    fn with(&self, other: &Self, each: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            arrivals: each(self.arrivals, other.arrivals),
            completions: each(self.completions, other.completions),
            abandoned: each(self.abandoned, other.abandoned),
            request_us: each(self.request_us, other.request_us),
            busy_us: each(self.busy_us, other.busy_us),
            served_us: each(self.served_us, other.served_us),
        }
    }
}

impl Sample {
    /// A sample as of `at`. Without `listened` it goes on from nothing: what `former` has counted by then is to be carried.
    /// `listened` tells whether somebody has listened to the process all the time since `former`, or for
    /// one of which nothing was said before, since a moment in which there was nothing to say.
    ///
    /// What a process has counted while nobody listened is set aside: it grew over a time that is past, and to an operator
    /// that has just begun it would look like a thousand requests at once. That there were calls is kept, since a revision
    /// that was called is not idle.
    pub(super) fn new(at: Duration, told: RevisionDemand, former: Option<&Self>, listened: bool) -> Self {
        let counters = Counters::of(&told);
        let RevisionDemand { in_flight, queued, pods, .. } = told;
        let aside = match former {
            Some(former) if former.is_ahead_of(&counters) => Counters::default(),
            Some(former) if listened => former.aside,
            Some(former) => {
                let called = counters.arrivals.saturating_sub(former.told.arrivals).min(1);
                Counters { arrivals: counters.arrivals.saturating_sub(called), ..counters }
            }
            None if listened => Counters::default(),
            None => Counters { arrivals: counters.arrivals.saturating_sub(1), ..counters },
        };
        Self { at, in_flight, queued, told: counters, aside, pods: pods.into() }
    }

    /// Whether the same process has begun to count anew, since it tells less than was told here: a revision lost its traffic
    /// and got it again.
    pub(super) fn is_ahead_of(&self, counters: &Counters) -> bool {
        counters.arrivals < self.told.arrivals || counters.request_us < self.told.request_us
    }

    /// Whether the frame begins to count anew; see [`Self::is_ahead_of`].
    pub(super) fn is_restarted_by(&self, told: &RevisionDemand) -> bool {
        self.is_ahead_of(&Counters::of(told))
    }

    /// Requests that came to the process.
    pub(super) fn arrivals(&self) -> u64 {
        self.told.arrivals
    }

    /// Sets aside everything that it tells.
    pub(super) fn settle(&mut self) {
        self.aside = self.told;
        (self.in_flight, self.queued, self.pods) = (0, 0, Box::default());
    }

    /// What counts, as of the sample.
    pub(super) fn told(&self) -> Counters {
        self.told.less(&self.aside)
    }

    /// What counts at `now`, if nothing has changed since.
    pub(super) fn by(&self, now: Duration) -> Counters {
        self.grown(now).less(&self.aside)
    }

    /// The same, with the requests in pods and in the queue ended at `now`, as those of a process are that is gone.
    pub(super) fn ended(&self, now: Duration) -> Counters {
        let counters = self.by(now);
        Counters {
            completions: counters.completions.saturating_add(self.in_flight),
            abandoned: counters.abandoned.saturating_add(self.queued),
            served_us: counters.busy_us,
            ..counters
        }
    }

    /// The counters of the process at `now`, if nothing has changed since.
    fn grown(&self, now: Duration) -> Counters {
        let passed = u64::try_from(now.saturating_sub(self.at).as_micros()).unwrap_or(u64::MAX);
        let grow = |sum: u64, requests: u64| sum.saturating_add(passed.saturating_mul(requests));
        Counters {
            request_us: grow(self.told.request_us, self.in_flight.saturating_add(self.queued)),
            busy_us: grow(self.told.busy_us, self.in_flight),
            ..self.told
        }
    }

    /// What it says of a pod.
    pub(super) fn word(&self, pod: &str) -> Word {
        match self.pods.iter().find(|p| p.pod == pod) {
            Some(PodDemand { in_flight, draining, .. }) => Word::Named { in_flight: *in_flight, draining: *draining },
            None if self.pods.is_empty() && self.in_flight > 0 => Word::Mute,
            None => Word::Unnamed,
        }
    }
}
