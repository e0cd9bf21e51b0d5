//! How a policy answers a step: a function whose load is five calls at once, and from one moment on fifty.
//!
//! Two runs for each limit, with an hour of constant load after the step. In the first, calls come evenly and all take
//! 200 ms, so that fifty at once is fifty at any moment; it gives the time until enough pods are wanted, and the overshoot. In
//! the second they come as they like and take as long as they like, with the same mean. Who turns in the first is restless
//! by himself, who turns in the second follows every chance.

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Exp1};
use serde::Serialize;

use crate::{
    MICROS_PER_SECOND, Micros,
    generate::service,
    outcome::Outcome,
    policy::Policy,
    random::{Purpose, stream},
    trace::{Call, Function},
    world::run,
};

const SECOND: Micros = 1_000_000;
/// When the step is: after all windows are full.
const STEP: Micros = 300 * SECOND;
/// After so long it is over, and the load is constant.
const SETTLED: Micros = STEP + 300 * SECOND;
const END: Micros = SETTLED + 3_600 * SECOND;
/// For overshoot, how long after the step to look.
const WATCHED: Micros = 60 * SECOND;

/// Calls at once before and after the step.
const LOADS: (f64, f64) = (5.0, 50.0);
const SERVICE: f64 = 0.2;

/// Limits that are tried.
pub(crate) const LIMITS: [u32; 3] = [1, 5, 20];

/// How a policy answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Answer {
    pub(crate) policy: String,
    /// Calls that one pod takes at once.
    pub(crate) limit: u32,
    /// From the step on, seconds until enough pods for it are wanted; none if they never were.
    pub(crate) response_s: Option<f64>,
    /// The most that was wanted in the minute after, over what the policy wants in the end, less one.
    pub(crate) overshoot: f64,
    /// In an hour of constant load, how often the count went up after it had gone down, or down after up.
    pub(crate) turns: u32,
    /// The same when calls come evenly.
    pub(crate) turns_even: u32,
    /// Of all independent calls, 99 of 100 waited no longer than this for a pod, in milliseconds.
    pub(crate) queue_p99_ms: f64,
}

/// Puts a policy to the step; none for the oracle, which has no answer to give.
pub(crate) fn answer(policy: Policy, limit: u32, seed: u64) -> Option<Answer> {
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
    Some(Answer {
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

/// What is wanted just before a moment.
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

/// Calls that are all alike.
fn even() -> Vec<Call> {
    let mut calls = Vec::new();
    for (from, to, load) in [(0, STEP, LOADS.0), (STEP, END, LOADS.1)] {
        let gap = (SERVICE / load * MICROS_PER_SECOND) as Micros;
        calls.extend((from..to).step_by(gap as usize).map(|at| Call { at, service: (SERVICE * 1e6) as u32 }));
    }
    calls
}

/// Independent calls of different lengths, with the same mean.
fn rough(seed: u64) -> Vec<Call> {
    let random: &mut ChaCha8Rng = &mut stream(seed, usize::MAX >> 2, Purpose::Calls);
    let spread = 0.5f64;
    let median = SERVICE * (-spread * spread / 2.0).exp();
    let mut calls = Vec::new();
    let mut at = 0.0;
    while at < END as f64 {
        let load = if at < STEP as f64 { LOADS.0 } else { LOADS.1 };
        let gap: f64 = Exp1.sample(random);
        at += gap * SERVICE / load * MICROS_PER_SECOND;
        calls.push(Call { at: at as Micros, service: service(random, median, spread) });
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{outcome::Samples, pods::PodTime};

    fn outcome(wanted: &[(Micros, u32)]) -> Outcome {
        Outcome::new(Samples::default(), PodTime::default(), wanted.to_vec())
    }

    #[test]
    fn the_response_is_the_time_until_enough_are_wanted() {
        let answered = outcome(&[(0, 1), (STEP + SECOND, 5), (STEP + 3 * SECOND, 10)]);
        assert_eq!(response(&answered, 10), Some(3.0));
        assert_eq!(response(&answered, 11), None);
        assert_eq!(response(&answered, 1), Some(0.0));
    }

    #[test]
    fn only_changes_of_direction_in_the_calm_count() {
        let settled = [(0, 4), (STEP, 9), (STEP + 1, 5)];
        assert_eq!(turns(&outcome(&settled)), 0);
        let mut later = settled.to_vec();
        later.extend([(SETTLED + 1, 6), (SETTLED + 2, 7), (SETTLED + 3, 6), (SETTLED + 4, 7)]);
        assert_eq!(turns(&outcome(&later)), 2);
    }

    #[test]
    fn the_loads_are_what_they_are_called() {
        let busy = |calls: &[Call], from: Micros, to: Micros| {
            let sum: u64 = calls.iter().filter(|c| (from..to).contains(&c.at)).map(|c| u64::from(c.service)).sum();
            sum as f64 / (to - from) as f64
        };
        assert!((busy(&even(), 0, STEP) - 5.0).abs() < 0.01);
        assert!((busy(&even(), STEP, STEP + WATCHED) - 50.0).abs() < 0.01);
        assert!((busy(&rough(1), SETTLED, END) - 50.0).abs() < 1.0);
    }
}
