//! Upper bound while more pods would not help.
//!
//! - Late pods: the cluster has insufficient capacity, an image pull is slow, or a node is overloaded. More pods would be
//!   late as well, and take resources from the pods that serve.
//! - Bottleneck: if more pods did not increase throughput although requests are queued, the limit is elsewhere, for example
//!   a shared node or a database. More pods would only slow each other down, which looks like more load.

use std::time::Duration;

use crate::{Demand, Observed, Policy, Reason, State, decide::loads::Loads, throughput::Throughput};

/// Minimum time for which the count is held.
const HOLD: Duration = Duration::from_secs(30);

/// Returns the maximum count and its reason, if more pods would not help.
pub(super) fn bound(
    demand: &Demand,
    observed: &Observed,
    policy: &Policy,
    state: &mut State,
    loads: &Loads,
) -> Option<(u32, Reason)> {
    let at = state.clock;
    let most = if demand.queued == 0 || loads.serving == 0 {
        state.throughput = Throughput::default();
        None
    } else {
        let hold = policy.stable_window.max(HOLD);
        state.throughput.record(at, demand.completions, loads.serving, observed.desired, hold)
    };
    // The first pods may serve requests before they are reported ready.
    let first = observed.ready == 0 && loads.serving > 0;
    if state.starts.oldest_late(at) && !first {
        // A single pod may be stuck while others could start, so pods are tried one at a time while others serve.
        let more = u32::from(loads.serving > 0 && state.starts.newest_late(at));
        return Some((observed.desired.saturating_add(more), Reason::WaitingForCapacity));
    }
    most.map(|most| (most, Reason::Bottleneck))
}
