//! Why a request is turned away without having reached a pod.

use std::time::Duration;

use rouse_crds::pod::PodFailure;

/// Why a request is turned away without having reached a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its Function is gone.
    Deleted,
    /// As many wait as may.
    QueueFull(Full),
    /// The function's pods do not start.
    Failing {
        /// What the kubelet, the scheduler or the API server says.
        failure: PodFailure,
        /// When another try makes sense.
        retry_after: Duration,
    },
}

/// Which bound of the queue was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// `queue.maxRequests` of the Function.
    Requests,
    /// `queue.maxBytes` of the Function.
    Bytes,
    /// The bytes that the waiting requests of a namespace, or of the whole activator, may hold.
    Shared,
}
