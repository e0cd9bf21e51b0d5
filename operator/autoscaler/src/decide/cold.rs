//! Pods for a cold start: requests are queued and no pod serves.
//!
//! If the service time is known from earlier requests, the load determines the count. The backlog is left to these pods;
//! the rest of the backlog is known once they are ready.
//!
//! If the service time is unknown, one pod is requested to measure it. Most starts complete before more pods would help.
//! During a longer start the count doubles with the elapsed time (slow start), up to the need of the present arrivals at a
//! service time of [`ASSUMED`]. A burst that has ended needs no more pods, and a load that continues does not wait for a
//! second start for all of its pods.

use std::time::Duration;

use crate::{
    Demand, Metric, Policy, State,
    decide::{loads::Loads, loads::target, pods},
    history::FRAME,
};

/// Assumed service time in seconds before a request has been served.
pub(super) const ASSUMED: f64 = 0.4;

/// After this time a second pod may be requested, after twice the time four pods, after four times the time eight.
const DOUBLING: Duration = Duration::from_millis(350);

/// Windows of the present arrivals. A load that continues has the same rate in both.
const NOW: Duration = FRAME;
const LATELY: Duration = Duration::from_secs(2);

/// Returns the pods to request, at least one.
pub(super) fn wanted(demand: &Demand, policy: &Policy, state: &State, loads: &Loads) -> u32 {
    if policy.metric == Metric::Rps || loads.service.is_some() {
        return pods(loads.swift.max(loads.panic)).max(1);
    }
    let waited = state.waiting_since.map_or(Duration::ZERO, |since| state.clock.saturating_sub(since));
    let arrivals = state.history.average(NOW).rps.min(state.history.average(LATELY).rps);
    let assumed = pods((arrivals * ASSUMED / target(policy)).min(loads.at_once));
    assumed.min(slow_start(waited)).max(1).min(u32::try_from(demand.concurrency()).unwrap_or(u32::MAX))
}

/// Returns the maximum number of requested pods after this time.
fn slow_start(waited: Duration) -> u32 {
    let doublings = (waited.as_nanos() / DOUBLING.as_nanos()).checked_ilog2().map_or(0, |n| n + 1);
    1u32.checked_shl(doublings).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_start_doubles_with_the_elapsed_time() {
        let after = |quarters: u32| slow_start(DOUBLING * quarters / 4);
        assert_eq!([0, 3, 4, 7, 8, 15, 16, 32, 64, 1024].map(after), [1, 1, 2, 2, 4, 4, 8, 16, 32, 512]);
        assert_eq!(slow_start(Duration::MAX), u32::MAX);
    }
}
