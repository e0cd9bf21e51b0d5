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
    pub(super) arrivals: u64,
    pub(super) request_us: u64,
    /// What of the two counters does not count here.
    aside: Counters,
    /// As many as the frame held.
    pub(super) pods: Box<[PodDemand]>,
}

/// Two counters that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) arrivals: u64,
    pub(super) request_us: u64,
}

impl Counters {
    pub(super) fn add(&mut self, other: Self) {
        self.arrivals = self.arrivals.saturating_add(other.arrivals);
        self.request_us = self.request_us.saturating_add(other.request_us);
    }
}

impl Sample {
    /// A sample as of `at`. `listened` tells whether somebody has listened to the process all the time since `former`, or for
    /// one of which nothing was said before, since a moment in which there was nothing to say.
    ///
    /// What a process has counted while nobody listened is set aside: it grew over a time that is past, and to an operator
    /// that has just begun it would look like a thousand requests at once. That there were calls is kept, since a revision
    /// that was called is not idle.
    pub(super) fn new(at: Duration, told: RevisionDemand, former: Option<&Self>, listened: bool) -> Self {
        let RevisionDemand { in_flight, queued, arrivals, request_us, pods, .. } = told;
        let aside = match former {
            Some(former) if former.is_ahead_of(arrivals, request_us) => Counters::default(),
            Some(former) if listened => former.aside,
            Some(former) => Counters {
                arrivals: former.aside.arrivals.saturating_add((arrivals - former.arrivals).saturating_sub(1)),
                request_us: former.aside.request_us.saturating_add(request_us.saturating_sub(former.integral(at))),
            },
            None if listened => Counters::default(),
            None => Counters { arrivals: arrivals.saturating_sub(1), request_us },
        };
        Self { at, in_flight, queued, arrivals, request_us, aside, pods: pods.into() }
    }

    /// Whether the same process has begun to count anew, since it tells less than was told here: a revision lost its traffic
    /// and got it again.
    pub(super) fn is_ahead_of(&self, arrivals: u64, request_us: u64) -> bool {
        arrivals < self.arrivals || request_us < self.request_us
    }

    /// Sets aside everything that it tells.
    pub(super) fn settle(&mut self) {
        self.aside = Counters { arrivals: self.arrivals, request_us: self.request_us };
        (self.in_flight, self.queued, self.pods) = (0, 0, Box::default());
    }

    /// What counts, as of the sample.
    pub(super) fn told(&self) -> Counters {
        self.counted(self.request_us)
    }

    /// What counts at `now`, if nothing has changed since.
    pub(super) fn by(&self, now: Duration) -> Counters {
        self.counted(self.integral(now))
    }

    fn counted(&self, request_us: u64) -> Counters {
        Counters {
            arrivals: self.arrivals.saturating_sub(self.aside.arrivals),
            request_us: request_us.saturating_sub(self.aside.request_us),
        }
    }

    fn integral(&self, now: Duration) -> u64 {
        let passed = u64::try_from(now.saturating_sub(self.at).as_micros()).unwrap_or(u64::MAX);
        self.request_us.saturating_add(passed.saturating_mul(self.in_flight.saturating_add(self.queued)))
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
