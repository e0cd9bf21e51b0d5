//! Properties of a world, and what it records for a scenario.

use crate::{clients::Clients, micros::Micros, node, outcome::Sketch, pods::Pick};

/// Properties of a world besides its function, requests and policy. By default there is no node, clients wait without a
/// timeout, and the run ends when all requests have a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) node: Option<node::Spec>,
    pub(crate) clients: Clients,
    pub(crate) pick: Pick,
    /// Number of requests from which a pod rejects further ones at once.
    pub(crate) fails_above: Option<u32>,
    /// Ends the run when all requests have a pod, and [`super::GRACE`] after the end at the latest, and keeps a record for [`Trail`].
    pub(crate) scenario: bool,
}

/// Measurements of a scenario besides the outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trail {
    /// Changes of the ready count.
    pub(crate) ready: Vec<(Micros, u32)>,
    /// Requests of clients, counted once regardless of retries.
    pub(crate) requests: u64,
    /// Requests that had no pod at the end.
    pub(crate) unserved: u64,
    /// Tries that left the queue without a pod.
    pub(crate) abandoned: u64,
    /// Requests that got an error, or whose client gave up.
    pub(crate) failed: u64,
    /// Time from the first try until a pod, giving up, or the end; in microseconds.
    pub(crate) waits: Sketch,
    pub(crate) longest: Micros,
}

impl Trail {
    pub(super) fn waited(&mut self, time: Micros) {
        self.waits.add(time as f64);
        self.longest = self.longest.max(time);
    }
}
