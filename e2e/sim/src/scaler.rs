//! What the simulated world asks of a policy. The product's `decide` is behind it, in `policy/rouse.rs`, and so is
//! everything that it is compared with.

use crate::{Micros, pods::Pods};

/// What a policy may know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) now: Micros,
    /// Requests in pods.
    pub(crate) in_flight: u64,
    /// Requests that wait.
    pub(crate) queued: u64,
    /// Requests that came, ever.
    pub(crate) arrivals: u64,
    /// Requests that ended in a pod, ever.
    pub(crate) completions: u64,
    /// Requests that left the queue without a pod, ever.
    pub(crate) abandoned: u64,
    /// Integral of `in_flight + queued`, in request-microseconds.
    pub(crate) request_us: u64,
    /// Integral of `in_flight`, in request-microseconds.
    pub(crate) busy_us: u64,
    /// In-pod time of the requests in `completions`, summed, in microseconds.
    pub(crate) served_us: u64,
    /// Pods that were asked for.
    pub(crate) desired: u32,
    pub(crate) pods: &'a Pods,
}

impl View<'_> {
    /// Requests that want a pod.
    pub(crate) fn concurrency(&self) -> u64 {
        self.in_flight + self.queued
    }
}

/// What a policy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Pods.
    pub(crate) pods: u32,
    /// When it wants to be asked again though nothing has happened.
    pub(crate) again: Option<Micros>,
}

/// When a policy is asked, apart from the times that it has set itself, and from a request that comes while there is no
/// pod and none is asked for: then every policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hears {
    /// On each frame of demand: every 250 ms while something changes.
    Frames,
    /// On each request that has to wait.
    Waiting,
    /// Never: it looks when it looks.
    Nothing,
}

/// A policy at work on one function.
pub(crate) trait Scaler {
    fn hears(&self) -> Hears;

    /// What is asked for at once when a request comes and there is no pod. Whoever does not decide on it then, returns
    /// what it wants to have decided.
    fn wake(&mut self, view: &View<'_>) -> Order;

    fn decide(&mut self, view: &View<'_>) -> Order;
}
