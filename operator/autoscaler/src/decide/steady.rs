//! Pods for a steady load: the average over the stable window.
//!
//! An increase is followed at once. A decrease is followed if it is clear or has lasted for a whole window, since an average
//! that fluctuates around a whole number of pods would otherwise start and stop a pod each time. The count does not fall
//! below the need of the panic window: when the pods of a backlog are released, a load that has grown is only partly in the
//! stable window.

use crate::{
    Observed, Policy, State,
    decide::{loads::Loads, pods},
};

/// Hysteresis of a decrease, in pods, at a load of one pod. Random variation grows with the square root of the load.
const MARGIN: f64 = 0.1;

/// Returns the pods for the stable average.
pub(super) fn wanted(observed: &Observed, policy: &Policy, state: &mut State, loads: &Loads) -> u32 {
    let plain = pods(loads.stable);
    let lasting = state.stable_max.record(state.clock, plain, policy.stable_window);
    if plain >= observed.desired {
        return plain;
    }
    let clear = pods(loads.stable + MARGIN * loads.stable.max(1.0).sqrt());
    clear.min(lasting).max(pods(loads.panic)).min(observed.desired).max(plain)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn hysteresis_is_a_tenth_of_the_square_root() {
        let wanted = |stable: f64, desired: u32, before: u32| {
            let (mut state, policy) = (State::new(Duration::ZERO), Policy::default());
            state.stable_max.record(state.clock, before, policy.stable_window);
            let loads = Loads { stable, panic: 0.0, swift: 0.0, at_once: 0.0, service: None, serving: desired };
            wanted(&Observed { desired, ready: desired }, &policy, &mut state, &loads)
        };
        assert_eq!([wanted(0.95, 2, 9), wanted(0.85, 2, 9)], [2, 1]);
        assert_eq!([wanted(24.6, 30, 99), wanted(24.4, 30, 99)], [26, 25]);
        assert_eq!(wanted(24.6, 25, 99), 25, "at most the present count");
        assert_eq!(wanted(24.6, 30, 0), 25, "a decrease that lasted for a window");
        assert_eq!(wanted(24.6, 24, 0), 25, "an increase is followed at once");
    }
}
