//! A pod that has an address.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use rouse_crds::function::Protocol;

use super::pool::Pool;

/// A pod that has an address, with the connections to it.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// Path of its readiness check, if that is by HTTP.
    pub readiness_path: Option<Box<str>>,
    /// Idle connections.
    pub(crate) pool: Pool,
    /// Requests in it that came through here. Changed only while its gate is locked, which is what keeps the limit.
    in_flight: AtomicU32,
    /// Times in a row that it could not be connected to.
    setbacks: AtomicU32,
}

impl Endpoint {
    /// A pod at this address.
    #[must_use]
    pub fn new(address: SocketAddr, protocol: Protocol, readiness_path: Option<Box<str>>) -> Self {
        Self {
            address,
            protocol,
            readiness_path,
            pool: Pool::default(),
            in_flight: AtomicU32::new(0),
            setbacks: AtomicU32::new(0),
        }
    }

    /// Requests in it that came through here.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a failure to connect, and tells how many there were before it.
    pub(crate) fn set_back(&self) -> u32 {
        self.setbacks.fetch_add(1, Ordering::Relaxed)
    }

    /// It has answered.
    pub(crate) fn answered(&self) {
        if self.setbacks.load(Ordering::Relaxed) > 0 {
            self.setbacks.store(0, Ordering::Relaxed);
        }
    }
}
