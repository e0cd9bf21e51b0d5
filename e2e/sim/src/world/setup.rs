//! Properties of a world, and what it records for a scenario.

use crate::{Micros, clients::Clients, node, outcome::Sketch, pods::Pick};

/// Everything about a world but its function, its requests and its policy. The default has no node, clients that wait for
/// ever, and ends when all requests have a response.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    pub(crate) node: Option<node::Spec>,
    pub(crate) clients: Clients,
    pub(crate) pick: Pick,
    /// A pod with more requests than that responds to one more with an error, at once.
    pub(crate) fails_above: Option<u32>,
    /// Ends the run when all requests have a pod, and [`super::GRACE`] after the end at the latest, and keeps a record for [`Trail`].
    pub(crate) scenario: bool,
}

/// What a scenario measures beside the outcome.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trail {
    /// When how many pods were ready.
    pub(crate) ready: Vec<(Micros, u32)>,
    /// Requests of clients, each counted once however often it was tried.
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
