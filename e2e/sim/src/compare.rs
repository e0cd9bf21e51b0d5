//! Runs every policy on every function of a trace and aggregates the outcomes.

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{
    micros::{MICROS_PER_SECOND, Micros},
    oracle,
    outcome::{Outcome, Sketch, percentile, slowdown},
    policy::{Policy, REFERENCE},
    request::Function,
    threads,
    trace::Trace,
    world::run,
};

/// Aggregated outcome of one policy on a whole trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) policy: String,
    #[serde(skip)]
    pub(crate) ours: bool,
    /// Ratio of cold requests of a function: percentiles over the functions with requests.
    pub(crate) cold_ratio_p50: f64,
    pub(crate) cold_ratio_p75: f64,
    pub(crate) cold_ratio_p95: f64,
    /// Ratio of cold requests over all functions.
    pub(crate) cold_ratio_calls: f64,
    /// Response time over service time: percentiles over all requests.
    pub(crate) slowdown_p50: f64,
    pub(crate) slowdown_p99: f64,
    /// Median over functions of the 99th percentile of a function.
    pub(crate) slowdown_p99_median_function: f64,
    /// Time in the queue, over all requests.
    pub(crate) queue_p99_ms: f64,
    /// Pod-seconds of idle and starting pods.
    pub(crate) wasted_pod_s: f64,
    /// `wasted_pod_s` relative to a keep-alive of ten minutes.
    pub(crate) wasted_relative: f64,
    pub(crate) pod_s: f64,
    /// Pod starts per hour, over all functions.
    pub(crate) starts_per_hour: f64,
    #[serde(rename = "calls")]
    pub(crate) requests: u64,
}

/// Runs every policy on every function. The result does not depend on the number of threads.
pub(crate) fn compare(
    trace: &Trace,
    policies: &[Policy],
    hours: u32,
    seed: u64,
    threads: usize,
) -> Result<Vec<Summary>> {
    let end = Micros::from(hours) * 3_600 * MICROS_PER_SECOND as Micros;
    let mut functions = trace.functions();
    // The longest work first, so that it does not run alone at the end.
    functions.sort_by(|a, b| b.expected.total_cmp(&a.expected).then(a.index.cmp(&b.index)));
    let mut all = policies.to_vec();
    if !all.contains(&REFERENCE) {
        all.push(REFERENCE);
    }
    let outcomes = threads::each(&functions, threads, |function| one(trace, function, &all, end, seed))?;
    let of = |nth: usize| outcomes.iter().map(move |outcomes| &outcomes[nth]);
    let wasted = |nth: usize| of(nth).map(Outcome::wasted).sum::<Micros>();
    let reference = all.iter().position(|p| *p == REFERENCE).context("the reference policy was not run")?;
    let reference = wasted(reference) as f64;
    Ok((0..policies.len()).map(|nth| summary(policies[nth], of(nth), hours, reference)).collect())
}

fn one(trace: &Trace, function: &Function, policies: &[Policy], end: Micros, seed: u64) -> Vec<Outcome> {
    let requests = trace.requests(function);
    let run = |policy: &Policy| match policy.scaler(function) {
        Some(mut scaler) => {
            let mut outcome = run(function, &requests, end, seed, &mut *scaler);
            // Not used here, and large over a day.
            outcome.wanted = Vec::new();
            outcome
        }
        None => oracle::run(function, &requests, end),
    };
    policies.iter().map(run).collect()
}

fn summary<'a>(
    policy: Policy,
    outcomes: impl Iterator<Item = &'a Outcome> + Clone,
    hours: u32,
    reference: f64,
) -> Summary {
    let (mut waits, mut slowdowns) = (Sketch::default(), Sketch::default());
    let (mut requests, mut cold, mut wasted, mut time, mut starts) = (0, 0, 0, 0, 0);
    for outcome in outcomes.clone() {
        waits.merge(&outcome.waits);
        outcome.merge_slowdowns(&mut slowdowns);
        requests += outcome.requests;
        cold += outcome.cold;
        wasted += outcome.wasted();
        time += outcome.pods.all;
        starts += outcome.pods.starts;
    }
    let mut ratios: Vec<_> = outcomes.clone().filter_map(Outcome::cold_ratio).collect();
    let mut slow: Vec<_> = outcomes.filter(|o| o.requests > 0).map(|o| o.slowdown(0.99)).collect();
    let mut ratio = |part| percentile(&mut ratios, part).unwrap_or(0.0);
    let seconds = |micros: Micros| micros as f64 / MICROS_PER_SECOND;
    let over = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    Summary {
        policy: policy.to_string(),
        ours: policy.is_ours(),
        cold_ratio_p50: ratio(0.5),
        cold_ratio_p75: ratio(0.75),
        cold_ratio_p95: ratio(0.95),
        cold_ratio_calls: over(cold as f64, requests as f64),
        slowdown_p50: slowdown(&slowdowns, 0.5),
        slowdown_p99: slowdown(&slowdowns, 0.99),
        slowdown_p99_median_function: percentile(&mut slow, 0.5).unwrap_or(1.0),
        queue_p99_ms: waits.percentile(0.99) / 1_000.0,
        wasted_pod_s: seconds(wasted),
        wasted_relative: over(wasted as f64, reference),
        pod_s: seconds(time),
        starts_per_hour: starts as f64 / f64::from(hours),
        requests,
    }
}

impl Summary {
    /// Returns whether this policy is better in one and worse in none of: waste, and the percentiles of cold ratios. One
    /// percentile alone would rate two policies equal that both leave a quarter of the functions cold.
    pub(crate) fn dominates(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.costs(), other.costs());
        mine.iter().zip(&theirs).all(|(m, t)| m <= t) && mine != theirs
    }

    fn costs(&self) -> [f64; 4] {
        [self.wasted_relative, self.cold_ratio_p50, self.cold_ratio_p75, self.cold_ratio_p95]
    }

    /// The oracle knows the future and is excluded from comparisons.
    pub(crate) fn is_bound(&self) -> bool {
        self.policy == Policy::Oracle.to_string()
    }
}

/// Returns the Pareto front of waste and a measure of cold starts, by increasing waste and without the oracle.
pub(crate) fn front(summaries: &[Summary], cold: impl Fn(&Summary) -> f64) -> Vec<&Summary> {
    let rivals = || summaries.iter().filter(|s| !s.is_bound());
    let point = |s: &Summary| (s.wasted_relative, cold(s));
    let beats = |a: (f64, f64), b: (f64, f64)| a.0 <= b.0 && a.1 <= b.1 && a != b;
    let mut front: Vec<_> = rivals().filter(|s| !rivals().any(|other| beats(point(other), point(s)))).collect();
    front.sort_by(|a, b| a.wasted_relative.total_cmp(&b.wasted_relative));
    front
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::trace::Source;

    pub(crate) fn policies(names: &str) -> Vec<Policy> {
        names.split(',').map(|name| name.parse().unwrap()).collect()
    }

    fn summaries(threads: usize, seed: u64) -> Vec<Summary> {
        let trace = Trace::open(&Source::Generated, 60, 2, seed).unwrap();
        compare(&trace, &policies("rouse,kpa,keep:1m,oracle"), 2, seed, threads).unwrap()
    }

    #[test]
    fn a_run_is_reproducible_on_any_number_of_threads() {
        let text = |threads, seed| serde_json::to_string(&summaries(threads, seed)).unwrap();
        let first = text(1, 4);
        assert_eq!(first, text(1, 4));
        assert_eq!(first, text(3, 4));
        assert_ne!(first, text(1, 5));
    }

    #[test]
    fn every_policy_serves_every_request_and_none_beats_the_oracle() {
        let summaries = summaries(2, 1);
        let oracle = &summaries[3];
        assert_eq!(oracle.cold_ratio_p95.to_bits(), 0);
        for summary in &summaries {
            assert_eq!(summary.requests, oracle.requests);
            assert!(summary.requests > 1_000 && summary.wasted_pod_s > 0.0);
            assert!(summary.wasted_pod_s >= oracle.wasted_pod_s, "{summary:?}");
        }
        // A keep-alive of one minute wastes less than the reference of ten minutes.
        assert!(summaries[2].wasted_relative < 1.0);
    }

    /// The figures from before the node model; without a node they must not change.
    #[test]
    fn without_a_node_figures_do_not_change() {
        let trace = Trace::open(&Source::Generated, 60, 2, 1).unwrap();
        let summaries = compare(&trace, &policies("heads,kpa,keep:1m,oracle"), 2, 1, 2).unwrap();
        let seen: Vec<_> = summaries
            .iter()
            .map(|s| {
                format!(
                    "{} {} {:.6} {:.6} {:.9}",
                    s.requests, s.starts_per_hour, s.pod_s, s.wasted_pod_s, s.queue_p99_ms
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                "21358 224 43740.216014 37566.011457 528.949617671",
                "21358 220 61064.815807 54854.595896 425.414627035",
                "21358 203.5 66385.225524 60185.475218 425.414627035",
                "21358 6245 13307.938029 7058.875475 0.000000000",
            ]
        );
    }

    #[test]
    fn the_front_contains_the_policies_that_none_dominates() {
        let of = |name: &str, waste, cold| Summary {
            policy: name.to_owned(),
            wasted_relative: waste,
            cold_ratio_p75: cold,
            ..summaries(1, 1)[0].clone()
        };
        let all = [of("a", 1.0, 0.2), of("b", 0.5, 0.5), of("c", 1.0, 0.3), of("d", 0.6, 0.6), of("oracle", 0.0, 0.0)];
        assert_eq!(front(&all, |s| s.cold_ratio_p75).iter().map(|s| s.policy.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert!(all[0].dominates(&all[2]) && !all[0].dominates(&all[0].clone()) && !all[0].dominates(&all[1]));
        let rarer = Summary { cold_ratio_p50: 0.0, ..all[2].clone() };
        assert!(!all[0].dominates(&rarer), "it is worse in the median");
    }
}
