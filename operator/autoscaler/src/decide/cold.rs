//! Requests wait and no pod serves.
//!
//! If it is known how long a request takes, as of an earlier time, the load says how many pods are wanted, and what has
//! piled up is left to the pods that come: they are there in a start time, and then it is known what is left.
//!
//! If it is not known, one pod is asked for, which finds out. Most starts are over before more is of use. While the start
//! lasts, the count doubles with the time that it has lasted, up to what the arrivals of now would need if a request took
//! [`ASSUMED`]: a burst that is over needs no more, and a load that goes on has not all its pods to wait for twice.

use std::time::Duration;

use crate::{
    Demand, Metric, Policy, State,
    decide::{loads::Loads, loads::target, pods},
};

/// Seconds in a pod that a request is taken for before one has been served.
pub(super) const ASSUMED: f64 = 0.4;

/// After this time a second pod may be asked for, after twice the time four, after four times the time eight.
const DOUBLING: Duration = Duration::from_millis(350);

/// Arrivals of now are those of the last of these, and a load that goes on has as many in the other.
const NOW: Duration = Duration::from_millis(250);
const LATELY: Duration = Duration::from_secs(2);

/// Pods to ask for, at least one.
pub(super) fn wanted(demand: &Demand, policy: &Policy, state: &State, loads: &Loads) -> u32 {
    if policy.metric == Metric::Rps || loads.service.is_some() {
        return pods(loads.swift.max(loads.panic)).max(1);
    }
    let waited = state.waiting_since.map_or(Duration::ZERO, |since| state.clock.saturating_sub(since));
    let arrivals = state.history.average(NOW).rps.min(state.history.average(LATELY).rps);
    let assumed = pods((arrivals * ASSUMED / target(policy)).min(loads.at_once));
    assumed.min(slow_start(waited)).max(1).min(u32::try_from(demand.concurrency()).unwrap_or(u32::MAX))
}

/// The most pods that may have been asked for after this time.
fn slow_start(waited: Duration) -> u32 {
    let doublings = (waited.as_nanos() / DOUBLING.as_nanos()).checked_ilog2().map_or(0, |n| n + 1);
    1u32.checked_shl(doublings).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_doubles_with_the_time_that_passed() {
        let after = |quarters: u32| slow_start(DOUBLING * quarters / 4);
        assert_eq!([0, 3, 4, 7, 8, 15, 16, 32, 64, 1024].map(after), [1, 1, 2, 2, 4, 4, 8, 16, 32, 512]);
        assert_eq!(slow_start(Duration::MAX), u32::MAX);
    }
}
