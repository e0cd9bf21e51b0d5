//! Interface between the simulated world and a policy. `policy/rouse.rs` implements it with the `decide` of Rouse.

use crate::{micros::Micros, pods::Pods};

/// Inputs of a policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) now: Micros,
    /// Requests in pods.
    pub(crate) in_flight: u64,
    /// Requests in the queue.
    pub(crate) queued: u64,
    /// Total requests received.
    pub(crate) arrivals: u64,
    /// Total requests completed in a pod.
    pub(crate) completions: u64,
    /// Total requests that left the queue without a pod.
    pub(crate) abandoned: u64,
    /// Integral of `in_flight + queued`, in request-microseconds.
    pub(crate) request_us: u64,
    /// Integral of `in_flight`, in request-microseconds.
    pub(crate) busy_us: u64,
    /// Total in-pod time of the requests in `completions`, in microseconds.
    pub(crate) served_us: u64,
    /// Requested pods.
    pub(crate) desired: u32,
    pub(crate) pods: &'a Pods,
}

impl View<'_> {
    /// Requests in pods and in the queue.
    pub(crate) fn concurrency(&self) -> u64 {
        self.in_flight + self.queued
    }
}

/// Decision of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Wanted pods.
    pub(crate) pods: u32,
    /// Time of the next decision, even if nothing has changed.
    pub(crate) decide_at: Option<Micros>,
}

/// Event on which a policy decides. Every policy also decides at the times that it requests, and on a request while no pod
/// is present or requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Each demand frame: every 250 ms while demand changes.
    Frames,
    /// Each queued request.
    Queued,
    /// None: the policy polls.
    Poll,
}

/// A policy that scales one function.
pub(crate) trait Scaler {
    fn trigger(&self) -> Trigger;

    /// Decides immediately for a request without a pod. A policy that does not decide on this event returns its present
    /// decision.
    fn wake(&mut self, view: &View<'_>) -> Decision;

    fn decide(&mut self, view: &View<'_>) -> Decision;
}
