//! A steady load: the average over the stable window.
//!
//! Up, it is followed at once. Down, only what is clearly less or has been less for a whole window: an average that goes to
//! and fro around a whole number of pods would have a pod come and go with it. And not below what the panic window needs: a
//! load that has grown, and whose pods a backlog has asked for, is in the stable window only in part when these are let go.

use crate::{
    Observed, Policy, State,
    decide::{loads::Loads, pods},
};

/// How much less is clearly less, in pods, for one pod. Chance makes an average of many vary with the root of their number.
const MARGIN: f64 = 0.1;

/// Pods for the average.
pub(super) fn wanted(observed: &Observed, policy: &Policy, state: &mut State, loads: &Loads) -> u32 {
    let plain = pods(loads.stable);
    let lasting = state.lasting.note(state.clock, plain, policy.stable_window);
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
    fn clearly_less_is_a_tenth_of_the_root() {
        let wanted = |stable: f64, desired: u32, before: u32| {
            let (mut state, policy) = (State::new(Duration::ZERO), Policy::default());
            state.lasting.note(state.clock, before, policy.stable_window);
            let loads = Loads { stable, panic: 0.0, swift: 0.0, at_once: 0.0, service: None, serving: desired };
            wanted(&Observed { desired, ready: desired }, &policy, &mut state, &loads)
        };
        assert_eq!([wanted(0.95, 2, 9), wanted(0.85, 2, 9)], [2, 1]);
        assert_eq!([wanted(24.6, 30, 99), wanted(24.4, 30, 99)], [26, 25]);
        assert_eq!(wanted(24.6, 25, 99), 25, "and never more than there are");
        assert_eq!(wanted(24.6, 30, 0), 25, "what has never been more is enough");
        assert_eq!(wanted(24.6, 24, 0), 25, "up, it is followed at once");
    }
}
