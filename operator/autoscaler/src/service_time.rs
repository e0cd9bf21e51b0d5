//! Service time estimate: the time that a request spends in a pod.
//!
//! The estimate is the mean over recent completions, weighted by age. Time in the queue is excluded, so a backlog does not
//! raise the estimate. While few requests have completed, the age of the requests in pods is a lower bound: a job that has
//! run for ten seconds takes at least ten seconds.

use std::time::Duration;

use crate::Demand;

/// Number of completions from which the age of requests in pods is ignored.
const IGNORE_AGE: f64 = 8.0;

/// Number of completions from which the estimate is representative.
const REPRESENTATIVE: f64 = 3.0;

/// Maximum mean age of the requests in pods, in service times, at which they fit the estimate. The mean age is half a
/// service time if all requests take the same time, and grows with their variance.
const MAX_AGE: f64 = 4.0;

/// Order of the half-life of a completion's weight; the stable window if that is longer.
const HALF_LIFE: Duration = Duration::from_secs(30);

/// Estimate of the service time of a revision. See the module documentation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ServiceTime {
    /// Time, `completions` and `served_us` at the last completion.
    last: Option<(Duration, u64, u64)>,
    /// Completions and their in-pod microseconds, weighted by age.
    completions: f64,
    served_us: f64,
    /// Difference of `busy_us` and `served_us` that is not due to requests in pods. A request that a pod did not complete is
    /// in `busy_us` only. A request that started before the first sample is in `served_us` with more than in `busy_us`.
    offset_us: i64,
    /// Highest mean age in seconds of the requests in pods since the last completion. The mean falls as requests join, but
    /// the lower bound stays valid.
    max_age: f64,
}

impl ServiceTime {
    /// Records the counters at `now`; `window` is the stable window.
    pub(crate) fn record(&mut self, now: Duration, demand: &Demand, window: Duration) {
        let unfinished = unfinished_us(demand);
        // The offset is exact while no request is in a pod, and the time of requests in pods is never negative.
        if demand.in_flight == 0 || unfinished < self.offset_us {
            self.offset_us = unfinished;
        }
        let sample = (now, demand.completions, demand.served_us);
        let Some((at, completions, served_us)) = self.last.replace(sample) else { return };
        let (completions_since, served_us_since) =
            (demand.completions.saturating_sub(completions), demand.served_us.saturating_sub(served_us));
        if completions_since == 0 {
            // Without a completion the weights do not change; the elapsed time is applied with the next completion.
            self.last = Some((at, completions, served_us));
            self.max_age = self.max_age.max(self.mean_age(demand).unwrap_or(0.0));
            return;
        }
        self.max_age = 0.0;
        let span = window.max(HALF_LIFE).as_secs_f64();
        let weight = span / (span + now.saturating_sub(at).as_secs_f64());
        self.completions = self.completions * weight + completions_since as f64;
        self.served_us = self.served_us * weight + served_us_since as f64;
    }

    /// Sets the estimate with the weight of one completion, unless a request has completed.
    pub(crate) fn assume(&mut self, seconds: f64) {
        if self.mean().is_none() {
            (self.completions, self.served_us) = (1.0, seconds * 1e6);
        }
    }

    /// Reduces the weight of the estimate of an idle function to a few completions: after a pause its data or its
    /// dependencies may have changed.
    pub(crate) fn limit_weight(&mut self) {
        if self.completions > REPRESENTATIVE {
            self.served_us *= REPRESENTATIVE / self.completions;
            self.completions = REPRESENTATIVE;
        }
    }

    /// Returns the estimate from completed requests, in seconds.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.completions > 0.0).then(|| self.served_us / self.completions / 1e6)
    }

    /// Returns the estimate in seconds from completed requests and from those in pods; `None` without either.
    pub(crate) fn seconds(&self, demand: &Demand) -> Option<f64> {
        let mean = self.mean();
        if self.completions >= IGNORE_AGE {
            return mean;
        }
        match (mean, self.mean_age(demand).map(|age| age.max(self.max_age))) {
            (Some(mean), Some(age)) => Some(mean.max(age)),
            (mean, age) => mean.or(age),
        }
    }

    /// Returns whether enough requests have completed and those in pods fit the estimate.
    pub(crate) fn is_representative(&self, demand: &Demand) -> bool {
        self.completions >= REPRESENTATIVE && self.matches_running(demand)
    }

    /// Returns whether a request has completed and those in pods fit the estimate.
    pub(crate) fn matches_running(&self, demand: &Demand) -> bool {
        let usual = |mean: f64| self.mean_age(demand).is_none_or(|age| age <= MAX_AGE * mean);
        self.mean().is_some_and(usual)
    }

    /// Returns the mean age in seconds of the requests in pods.
    fn mean_age(&self, demand: &Demand) -> Option<f64> {
        let running = unfinished_us(demand).saturating_sub(self.offset_us).max(0) as f64;
        (demand.in_flight > 0).then(|| running / demand.in_flight as f64 / 1e6)
    }
}

/// Returns how far the integral of requests in pods is ahead of the completed requests, in request-microseconds.
fn unfinished_us(demand: &Demand) -> i64 {
    i64::try_from(i128::from(demand.busy_us) - i128::from(demand.served_us)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn demand(in_flight: u64, completions: u64, busy_ms: u64, served_ms: u64) -> Demand {
        Demand { in_flight, completions, busy_us: busy_ms * 1000, served_us: served_ms * 1000, ..Demand::default() }
    }

    fn recorded(all: &[(u64, Demand)]) -> ServiceTime {
        let mut service = ServiceTime::default();
        for (second, demand) in all {
            service.record(Duration::from_secs(*second), demand, WINDOW);
        }
        service
    }

    fn millis(service: &ServiceTime, demand: &Demand) -> Option<u64> {
        service.seconds(demand).map(|seconds| (seconds * 1000.0).round() as u64)
    }

    #[test]
    fn unknown_before_a_request_is_in_a_pod() {
        let queued = Demand { queued: 9, arrivals: 9, request_us: 9_000_000, ..Demand::default() };
        assert_eq!(recorded(&[(0, Demand::default()), (1, queued)]).seconds(&queued), None);
    }

    #[test]
    fn the_age_of_requests_in_pods_is_a_lower_bound_until_enough_have_completed() {
        let running = demand(2, 0, 8000, 0);
        let service = recorded(&[(0, Demand::default()), (4, running)]);
        assert_eq!(millis(&service, &running), Some(4000));
        let few = demand(1, 2, 20_000, 10_000);
        let service = recorded(&[(0, Demand::default()), (4, few)]);
        assert_eq!(millis(&service, &few), Some(10_000), "one has run for ten seconds, the two before took five");
        let many = demand(1, 8, 20_000, 10_000);
        let service = recorded(&[(0, Demand::default()), (4, many)]);
        assert_eq!(millis(&service, &many), Some(1250));
    }

    #[test]
    fn recent_completions_count_most_and_the_estimate_does_not_expire() {
        let slow = demand(0, 100, 100_000, 100_000);
        let fast = demand(0, 200, 110_000, 110_000);
        let service = recorded(&[(0, Demand::default()), (10, slow), (600, fast)]);
        let sample = millis(&service, &fast).unwrap();
        assert!((150..250).contains(&sample), "{sample}");
        let mut later = service;
        later.record(Duration::from_secs(86_400), &fast, WINDOW);
        assert_eq!(millis(&later, &fast), Some(sample), "a day without requests does not change the estimate");
    }

    #[test]
    fn requests_that_failed_in_a_pod_do_not_raise_the_age() {
        // A minute of requests to pods that refused the connection; then one that takes a second.
        let (failed, one) = (demand(0, 2, 62_000, 2000), demand(1, 2, 62_500, 2000));
        let service = recorded(&[(0, Demand::default()), (60, failed), (61, one)]);
        assert_eq!((millis(&service, &one), service.mean_age(&one)), (Some(1000), Some(0.5)));
    }

    #[test]
    fn requests_from_before_the_first_sample_do_not_lower_the_age() {
        // Ten complete that ran for a minute before, which is not in the integral; then one that has run for four seconds.
        let (ended, one) = (demand(0, 10, 10_000, 610_000), demand(1, 10, 14_000, 610_000));
        let service = recorded(&[(0, Demand::default()), (1, ended), (5, one)]);
        assert_eq!(service.mean_age(&one), Some(4.0));
        // Without a time without requests, the age is too low but grows.
        let (busy, later) = (demand(1, 10, 10_000, 610_000), demand(1, 10, 14_000, 610_000));
        assert_eq!(recorded(&[(0, Demand::default()), (1, busy), (5, later)]).mean_age(&later), Some(4.0));
    }

    #[test]
    fn counters_from_before_the_first_sample_are_ignored() {
        let before = demand(0, 1_000, 1, 1);
        assert_eq!(recorded(&[(0, before)]).seconds(&before), None);
    }
}
