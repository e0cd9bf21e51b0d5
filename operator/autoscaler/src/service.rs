//! Service time: how long a request spends in a pod, learned from requests that ended.
//!
//! The estimate is the mean over recent completions, each weighted less the longer it is ago. Time in the queue is not in it,
//! so a backlog does not make requests look longer. While few requests have ended, those that are in pods now are a lower
//! bound: a job that has run for ten seconds takes ten seconds at least.

use std::time::Duration;

use crate::Demand;

/// So many completions make an estimate that the requests in pods now say nothing against.
const TRUSTED: f64 = 8.0;

/// So many say what is usual.
const FEW: f64 = 3.0;

/// Requests in pods are on average half as old as they become, if all take alike, and older the more they differ.
const USUAL: f64 = 4.0;

/// Completions count less by half after a time of this order, or after the stable window if that is longer.
const MEMORY: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServiceTime {
    /// When the counters below were noted, and these counters; none before the first time.
    noted: Option<(Duration, u64, u64)>,
    /// Completions, weighted by age, and their in-pod microseconds by the same weights.
    completions: f64,
    served_us: f64,
    /// What `busy_us` is ahead of `served_us` by, beside the requests in pods. What is served by a pod that then cannot be
    /// connected to is in the one alone, and what began before anybody looked is in the other with more than is in the one.
    offset_us: i64,
    /// The highest mean age of requests in pods since one has ended, in seconds: as others join them the mean falls, and what
    /// was seen stays true.
    oldest: f64,
}

impl ServiceTime {
    /// Takes in the counters as of `now`; `window` is the stable window.
    pub(crate) fn note(&mut self, now: Duration, demand: &Demand, window: Duration) {
        let ahead = ahead(demand);
        // While nothing is in a pod the offset is seen; and at no time is what is in pods less than nothing.
        if demand.in_flight == 0 || ahead < self.offset_us {
            self.offset_us = ahead;
        }
        let seen = (now, demand.completions, demand.served_us);
        let Some((at, completions, served_us)) = self.noted.replace(seen) else { return };
        let (ended, took) =
            (demand.completions.saturating_sub(completions), demand.served_us.saturating_sub(served_us));
        if ended == 0 {
            // Nothing new is known, so the old counts as before; its age is taken off with the next completion.
            self.noted = Some((at, completions, served_us));
            self.oldest = self.oldest.max(self.age(demand).unwrap_or(0.0));
            return;
        }
        self.oldest = 0.0;
        let span = window.max(MEMORY).as_secs_f64();
        let weight = span / (span + now.saturating_sub(at).as_secs_f64());
        self.completions = self.completions * weight + ended as f64;
        self.served_us = self.served_us * weight + took as f64;
    }

    /// Takes this for the estimate, as if one request had shown it, unless one has ended.
    pub(crate) fn assume(&mut self, seconds: f64) {
        if self.mean().is_none() {
            (self.completions, self.served_us) = (1.0, seconds * 1e6);
        }
    }

    /// Nobody calls. The estimate stays, but counts no more than a few requests that end from now on: after a pause a function
    /// may be another, as its data are, or what it calls.
    pub(crate) fn rest(&mut self) {
        if self.completions > FEW {
            self.served_us *= FEW / self.completions;
            self.completions = FEW;
        }
    }

    /// The estimate from requests that ended, in seconds.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.completions > 0.0).then(|| self.served_us / self.completions / 1e6)
    }

    /// Seconds that a request spends in a pod; `None` while nothing says anything of it.
    pub(crate) fn seconds(&self, demand: &Demand) -> Option<f64> {
        let mean = self.mean();
        if self.completions >= TRUSTED {
            return mean;
        }
        match (mean, self.age(demand).map(|age| age.max(self.oldest))) {
            (Some(mean), Some(age)) => Some(mean.max(age)),
            (mean, age) => mean.or(age),
        }
    }

    /// Whether enough requests have ended and those in pods now are such as these were.
    pub(crate) fn explains(&self, demand: &Demand) -> bool {
        let usual = |mean: f64| self.age(demand).is_none_or(|age| age <= USUAL * mean);
        self.completions >= FEW && self.mean().is_some_and(usual)
    }

    /// Mean age of the requests that are in pods now, in seconds: what the integral holds beyond the requests that ended.
    fn age(&self, demand: &Demand) -> Option<f64> {
        let running = ahead(demand).saturating_sub(self.offset_us).max(0) as f64;
        (demand.in_flight > 0).then(|| running / demand.in_flight as f64 / 1e6)
    }
}

/// By how much the integral of requests in pods is ahead of those that ended, in request-microseconds.
fn ahead(demand: &Demand) -> i64 {
    i64::try_from(i128::from(demand.busy_us) - i128::from(demand.served_us)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn demand(in_flight: u64, completions: u64, busy_ms: u64, served_ms: u64) -> Demand {
        Demand { in_flight, completions, busy_us: busy_ms * 1000, served_us: served_ms * 1000, ..Demand::default() }
    }

    fn noted(all: &[(u64, Demand)]) -> ServiceTime {
        let mut service = ServiceTime::default();
        for (second, demand) in all {
            service.note(Duration::from_secs(*second), demand, WINDOW);
        }
        service
    }

    fn millis(service: &ServiceTime, demand: &Demand) -> Option<u64> {
        service.seconds(demand).map(|seconds| (seconds * 1000.0).round() as u64)
    }

    #[test]
    fn nothing_is_known_before_a_request_is_in_a_pod() {
        let queued = Demand { queued: 9, arrivals: 9, request_us: 9_000_000, ..Demand::default() };
        assert_eq!(noted(&[(0, Demand::default()), (1, queued)]).seconds(&queued), None);
    }

    #[test]
    fn the_age_of_requests_in_pods_is_a_lower_bound_until_enough_have_ended() {
        let running = demand(2, 0, 8000, 0);
        let service = noted(&[(0, Demand::default()), (4, running)]);
        assert_eq!(millis(&service, &running), Some(4000));
        let few = demand(1, 2, 20_000, 10_000);
        let service = noted(&[(0, Demand::default()), (4, few)]);
        assert_eq!(millis(&service, &few), Some(10_000), "one runs for ten seconds, the two before took five");
        let many = demand(1, 8, 20_000, 10_000);
        let service = noted(&[(0, Demand::default()), (4, many)]);
        assert_eq!(millis(&service, &many), Some(1250));
    }

    #[test]
    fn what_ended_lately_counts_most_and_the_last_estimate_stays() {
        let slow = demand(0, 100, 100_000, 100_000);
        let fast = demand(0, 200, 110_000, 110_000);
        let service = noted(&[(0, Demand::default()), (10, slow), (600, fast)]);
        let seen = millis(&service, &fast).unwrap();
        assert!((150..250).contains(&seen), "{seen}");
        let mut later = service;
        later.note(Duration::from_secs(86_400), &fast, WINDOW);
        assert_eq!(millis(&later, &fast), Some(seen), "a day without a request says nothing of how long one takes");
    }

    #[test]
    fn what_was_in_a_pod_and_never_ended_there_ages_no_other() {
        // A minute of requests that were given to pods that could not be connected to; then one that takes a second.
        let (gone, one) = (demand(0, 2, 62_000, 2000), demand(1, 2, 62_500, 2000));
        let service = noted(&[(0, Demand::default()), (60, gone), (61, one)]);
        assert_eq!((millis(&service, &one), service.age(&one)), (Some(1000), Some(0.5)));
    }

    #[test]
    fn what_began_before_the_first_look_makes_no_other_younger() {
        // Ten that ran for a minute before, which is not in the integral, and end; then one that has run for four seconds.
        let (ended, one) = (demand(0, 10, 10_000, 610_000), demand(1, 10, 14_000, 610_000));
        let service = noted(&[(0, Demand::default()), (1, ended), (5, one)]);
        assert_eq!(service.age(&one), Some(4.0));
        // Never is there a moment without one: the age is too little, but it counts again.
        let (busy, later) = (demand(1, 10, 10_000, 610_000), demand(1, 10, 14_000, 610_000));
        assert_eq!(noted(&[(0, Demand::default()), (1, busy), (5, later)]).age(&later), Some(4.0));
    }

    #[test]
    fn what_was_counted_before_the_first_look_is_not_taken_in() {
        let before = demand(0, 1_000, 1, 1);
        assert_eq!(noted(&[(0, before)]).seconds(&before), None);
    }
}
