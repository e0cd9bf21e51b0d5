//! Step response of a policy: the concurrency of a function rises from five to fifty.
//!
//! Two runs per limit, with an hour of constant load after the step. In the first run, requests are evenly spaced and take
//! 200 ms each, so the concurrency is always fifty. This run measures the response time and the overshoot. In the second run,
//! requests are independent and of random length, with the same mean. Direction changes in the first run are oscillation of
//! the policy; those in the second run are reactions to random variation.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp1};
use serde::Serialize;

use crate::{
    micros::{MICROS_PER_SECOND, Micros},
    outcome::Outcome,
    policy::Policy,
    random::{Purpose, service, stream},
    request::{Arrival, Function},
    world::run,
};

const SECOND: Micros = 1_000_000;
/// Time of the step, after all windows are full.
const STEP: Micros = 300 * SECOND;
/// Time from which the policy should have settled.
const SETTLED: Micros = STEP + 300 * SECOND;
const END: Micros = SETTLED + 3_600 * SECOND;
/// Time after the step in which overshoot is measured.
const WATCHED: Micros = 60 * SECOND;

/// Concurrency before and after the step.
const LOADS: (f64, f64) = (5.0, 50.0);
const SERVICE: f64 = 0.2;

/// Concurrency limits to test.
pub(crate) const LIMITS: [u32; 3] = [1, 5, 20];

/// Step response of a policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct StepResponse {
    pub(crate) policy: String,
    /// Concurrency limit of a pod.
    pub(crate) limit: u32,
    /// Seconds from the step until enough pods are wanted; `None` if they never are.
    pub(crate) response_s: Option<f64>,
    /// Maximum count in the minute after the step, relative to the final count, minus one.
    pub(crate) overshoot: f64,
    /// Direction changes of the count in an hour of constant load.
    pub(crate) turns: u32,
    /// The same with evenly spaced requests.
    pub(crate) turns_even: u32,
    /// 99th percentile of the time in the queue with independent requests, in milliseconds.
    pub(crate) queue_p99_ms: f64,
}

/// Measures the step response of a policy; none for the oracle.
pub(crate) fn step_response(policy: Policy, limit: u32, seed: u64) -> Option<StepResponse> {
    let function = Function { index: 0, kind: "step", limit, start: 0.4, expected: 0.0 };
    let even = run(&function, &even(), END, seed, &mut *policy.scaler(&function)?);
    let rough = run(&function, &rough(seed), END, seed, &mut *policy.scaler(&function)?);
    let enough = (LOADS.1 / f64::from(limit)).ceil() as u32;
    let settled = count_at(&even, END).max(1);
    let most = even
        .wanted
        .iter()
        .filter(|(at, _)| (STEP..STEP + WATCHED).contains(at))
        .map(|(_, count)| *count)
        .max()
        .unwrap_or(0);
    Some(StepResponse {
        policy: policy.to_string(),
        limit,
        response_s: response(&even, enough),
        overshoot: (f64::from(most) / f64::from(settled.max(enough)) - 1.0).max(0.0),
        turns: turns(&rough),
        turns_even: turns(&even),
        queue_p99_ms: rough.waits.percentile(0.99) / 1_000.0,
    })
}

fn response(outcome: &Outcome, enough: u32) -> Option<f64> {
    if count_at(outcome, STEP) >= enough {
        return Some(0.0);
    }
    let right = outcome.wanted.iter().find(|(at, count)| *at >= STEP && *count >= enough)?;
    Some((right.0 - STEP) as f64 / MICROS_PER_SECOND)
}

/// Returns the wanted count just before a time.
fn count_at(outcome: &Outcome, at: Micros) -> u32 {
    outcome.wanted.iter().take_while(|(when, _)| *when < at).last().map_or(0, |(_, count)| *count)
}

fn turns(outcome: &Outcome) -> u32 {
    let mut before = count_at(outcome, SETTLED);
    let (mut turns, mut direction) = (0, None);
    for (_, count) in outcome.wanted.iter().filter(|(at, _)| *at >= SETTLED) {
        let now = count.cmp(&before);
        turns += u32::from(direction.is_some_and(|last| last != now));
        (direction, before) = (Some(now), *count);
    }
    turns
}

/// Returns evenly spaced requests of the same length.
fn even() -> Vec<Arrival> {
    let mut requests = Vec::new();
    for (from, to, load) in [(0, STEP, LOADS.0), (STEP, END, LOADS.1)] {
        let gap = (SERVICE / load * MICROS_PER_SECOND) as Micros;
        requests.extend((from..to).step_by(gap as usize).map(|at| Arrival { at, service: (SERVICE * 1e6) as u32 }));
    }
    requests
}

/// Returns independent requests of random length, with the same mean.
fn rough(seed: u64) -> Vec<Arrival> {
    let random: &mut ChaCha8Rng = &mut stream(seed, usize::MAX >> 2, Purpose::Requests);
    let spread = 0.5f64;
    let median = SERVICE * (-spread * spread / 2.0).exp();
    let mut requests = Vec::new();
    let mut at = 0.0;
    while at < END as f64 {
        let load = if at < STEP as f64 { LOADS.0 } else { LOADS.1 };
        let gap: f64 = Exp1.sample(random);
        at += gap * SERVICE / load * MICROS_PER_SECOND;
        requests.push(Arrival { at: at as Micros, service: service(random, median, spread) });
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{outcome::Samples, pods::PodTime};

    fn outcome(wanted: &[(Micros, u32)]) -> Outcome {
        Outcome::new(Samples::default(), PodTime::default(), wanted.to_vec())
    }

    #[test]
    fn response_time_is_measured_until_enough_pods_are_wanted() {
        let answered = outcome(&[(0, 1), (STEP + SECOND, 5), (STEP + 3 * SECOND, 10)]);
        assert_eq!(response(&answered, 10), Some(3.0));
        assert_eq!(response(&answered, 11), None);
        assert_eq!(response(&answered, 1), Some(0.0));
    }

    #[test]
    fn only_direction_changes_after_settling_count() {
        let settled = [(0, 4), (STEP, 9), (STEP + 1, 5)];
        assert_eq!(turns(&outcome(&settled)), 0);
        let mut later = settled.to_vec();
        later.extend([(SETTLED + 1, 6), (SETTLED + 2, 7), (SETTLED + 3, 6), (SETTLED + 4, 7)]);
        assert_eq!(turns(&outcome(&later)), 2);
    }

    #[test]
    fn loads_have_their_concurrency() {
        let busy = |requests: &[Arrival], from: Micros, to: Micros| {
            let sum: u64 = requests.iter().filter(|c| (from..to).contains(&c.at)).map(|c| u64::from(c.service)).sum();
            sum as f64 / (to - from) as f64
        };
        assert!((busy(&even(), 0, STEP) - 5.0).abs() < 0.01);
        assert!((busy(&even(), STEP, STEP + WATCHED) - 50.0).abs() < 0.01);
        assert!((busy(&rough(1), SETTLED, END) - 50.0).abs() < 1.0);
    }
}
