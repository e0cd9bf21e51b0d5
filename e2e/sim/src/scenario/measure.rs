//! Figures of one policy in one scenario.

use serde::Serialize;

use super::{SECOND, Scenario};
use crate::{
    micros::{MICROS_PER_SECOND, Micros},
    policy::Policy,
    world::Trail,
};

/// Time between two entries of a timeline, in seconds.
pub(super) const TIMELINE: usize = 2;

/// Figures of one policy in one scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) scenario: &'static str,
    pub(crate) policy: String,
    /// Pods needed at the constant load.
    pub(crate) needed: u32,
    /// Maximum number of wanted pods.
    pub(crate) most: u32,
    /// The same relative to the needed pods.
    pub(crate) most_ratio: f64,
    /// Pod-seconds wanted above the oracle.
    pub(crate) overshoot_pod_s: f64,
    /// The same relative to the pod-seconds of the oracle, with at least one pod in each second.
    pub(crate) overshoot_ratio: f64,
    /// Pod-seconds wanted below the oracle.
    pub(crate) undershoot_pod_s: f64,
    /// Seconds from a client's first try until a pod, or until it gives up.
    pub(crate) queue_p50_s: f64,
    pub(crate) queue_p99_s: f64,
    pub(crate) queue_max_s: f64,
    /// Direction changes of the count per hour of constant load; `None` if the load is never constant.
    pub(crate) turns_per_hour: Option<f64>,
    pub(crate) requests: u64,
    /// Requests without a pod one minute after the end.
    pub(crate) unserved: u64,
    /// Tries that left the queue.
    pub(crate) abandoned: u64,
    /// Requests that got an error, or whose client gave up.
    pub(crate) failed: u64,
    /// Every two seconds: pods wanted and pods ready.
    pub(crate) timeline: Vec<(u32, u32)>,
}

impl Figures {
    pub(super) fn of(scenario: &Scenario, policy: Policy, wanted: &[(Micros, u32)], trail: &Trail) -> Self {
        let needed = scenario.needed();
        let steadily = scenario.needed_steadily();
        // The run continues until the last request has a pod.
        let wanted = &wanted[..wanted.partition_point(|(at, _)| *at < scenario.end())];
        let most = wanted.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let overshoot = pod_seconds(wanted, &needed, scenario.end(), u32::saturating_sub);
        let undershoot = pod_seconds(wanted, &needed, scenario.end(), |wanted, needed| needed.saturating_sub(wanted));
        let oracle: u32 = needed.iter().map(|pods| (*pods).max(1)).sum();
        let turns = |(from, to): (usize, usize)| {
            let turns = turns(wanted, from as Micros * SECOND, to as Micros * SECOND);
            f64::from(turns) * 3_600.0 / (to - from) as f64
        };
        let queue = |part| trail.waits.percentile(part) / MICROS_PER_SECOND;
        let longest = trail.longest as f64 / MICROS_PER_SECOND;
        Self {
            scenario: scenario.name,
            policy: policy.to_string(),
            needed: steadily,
            most,
            most_ratio: f64::from(most) / f64::from(steadily),
            overshoot_pod_s: overshoot,
            overshoot_ratio: overshoot / f64::from(oracle),
            undershoot_pod_s: undershoot,
            // The sketch is exact to 1 %.
            queue_p50_s: queue(0.5).min(longest),
            queue_p99_s: queue(0.99).min(longest),
            queue_max_s: longest,
            turns_per_hour: scenario.constant.map(turns),
            requests: trail.requests,
            unserved: trail.unserved,
            abandoned: trail.abandoned,
            failed: trail.failed,
            timeline: (0..needed.len())
                .step_by(TIMELINE)
                .map(|second| second as Micros * SECOND)
                .map(|at| (value_at(wanted, at), value_at(&trail.ready, at)))
                .collect(),
        }
    }
}

/// Returns the value of a step function at a time.
fn value_at(steps: &[(Micros, u32)], at: Micros) -> u32 {
    let next = steps.partition_point(|(when, _)| *when <= at);
    next.checked_sub(1).map_or(0, |index| steps[index].1)
}

/// Returns the pod-seconds of a difference between the wanted and the needed pods.
fn pod_seconds(wanted: &[(Micros, u32)], needed: &[u32], end: Micros, difference: fn(u32, u32) -> u32) -> f64 {
    let ends = wanted.iter().skip(1).map(|(at, _)| *at).chain([end]);
    let mut pod_us = 0;
    for ((from, count), to) in wanted.iter().zip(ends) {
        let (mut at, to) = (*from, to.min(end));
        while at < to {
            let second = at / SECOND;
            let next = to.min((second + 1) * SECOND);
            pod_us += u64::from(difference(*count, needed[second as usize])) * (next - at);
            at = next;
        }
    }
    pod_us as f64 / MICROS_PER_SECOND
}

/// Returns the direction changes of the count between two times.
fn turns(wanted: &[(Micros, u32)], from: Micros, to: Micros) -> u32 {
    let (mut turns, mut direction) = (0, None);
    for pair in wanted.windows(2).filter(|pair| (from..to).contains(&pair[1].0)) {
        let now = pair[1].1.cmp(&pair[0].1);
        turns += u32::from(direction.is_some_and(|last| last != now));
        direction = Some(now);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overshoot_is_the_wanted_count_above_the_need_of_each_second() {
        // Half a second too early, then exact, then one too many for two seconds, then too few.
        let wanted = [(0, 0), (500_000, 2), (3 * SECOND, 3), (5 * SECOND, 1)];
        let over = |wanted: &[_], needed: &[_]| pod_seconds(wanted, needed, 6 * SECOND, u32::saturating_sub);
        assert!((over(&wanted, &[0, 2, 2, 2, 2, 2]) - 3.0).abs() < 1e-9);
        assert!(over(&[(0, 1)], &[1; 6]).abs() < 1e-9);
        assert!((over(&[(0, 4)], &[1; 6]) - 18.0).abs() < 1e-9);
    }

    #[test]
    fn turns_are_changes_of_direction() {
        let wanted = [(0, 0), (1, 5), (2, 9), (3, 4), (4, 6), (5, 7), (9, 1)];
        assert_eq!((turns(&wanted, 0, 100), turns(&wanted, 3, 100), turns(&wanted, 0, 9)), (3, 2, 2));
    }

    #[test]
    fn a_step_function_has_the_value_of_its_last_step() {
        let steps = [(5, 1), (8, 4)];
        assert_eq!([4, 5, 7, 8, 99].map(|at| value_at(&steps, at)), [0, 1, 1, 4, 4]);
    }
}
