//! Functions and their requests.

use crate::micros::Micros;

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) at: Micros,
    /// Service time in microseconds.
    pub(crate) service: u32,
}

/// The properties of a function that are visible to a policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Function {
    /// Number of the function in the trace.
    pub(crate) index: usize,
    /// Arrival pattern.
    pub(crate) kind: &'static str,
    /// Concurrency limit of a pod.
    pub(crate) limit: u32,
    /// Median pod start time in seconds.
    pub(crate) start: f64,
    /// Approximate number of requests, to run the longest work first.
    pub(crate) expected: f64,
}
