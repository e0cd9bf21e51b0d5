//! A steady load: the average over the stable window.
//!
//! Up, it is followed at once. Down, only what is clearly less or has been less for a whole window: an average that goes to
//! and fro around a whole number of pods would have a pod come and go with it.

use crate::{
    Observed, Policy, State,
    decide::{Loads, pods},
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
    clear.min(lasting).min(observed.desired).max(plain)
}
