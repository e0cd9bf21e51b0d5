//! Endpoint: the address of a pod, its connections, and its requests in flight.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use rouse_crds::{function::Protocol, pod::ReadinessCheck};

use super::pool::Pool;

/// A pod that has an IP address, with its connections and requests in flight.
#[derive(Debug)]
pub struct Endpoint {
    /// The address that the function listens on.
    pub address: SocketAddr,
    /// The protocol of the function.
    pub protocol: Protocol,
    /// How the pod is found ready before the kubelet reports it.
    pub readiness: ReadinessCheck,
    /// Pooled connections.
    pub(crate) pool: Pool,
    /// Requests in the pod that this process sent. Changed only while the breaker is locked, which enforces the limit.
    in_flight: AtomicU32,
    /// Consecutive connect failures.
    connect_failures: AtomicU32,
}

impl Endpoint {
    /// Creates an endpoint without connections.
    #[must_use]
    pub fn new(address: SocketAddr, protocol: Protocol, readiness: ReadinessCheck) -> Self {
        Self {
            address,
            protocol,
            readiness,
            pool: Pool::default(),
            in_flight: AtomicU32::new(0),
            connect_failures: AtomicU32::new(0),
        }
    }

    /// Number of requests in the pod that this process sent.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn start_request(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end_request(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a connect failure, and returns how many there were before.
    pub(crate) fn record_connect_failure(&self) -> u32 {
        self.connect_failures.fetch_add(1, Ordering::Relaxed)
    }

    /// Resets the connect failures after a response.
    pub(crate) fn reset_connect_failures(&self) {
        if self.connect_failures.load(Ordering::Relaxed) > 0 {
            self.connect_failures.store(0, Ordering::Relaxed);
        }
    }
}
