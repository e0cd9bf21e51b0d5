//! Pool of idle connections to one pod.
//!
//! An HTTP/1.1 connection carries one request at a time and is kept for a short time afterwards, which ends whether or
//! not there are requests. HTTP/2 connections are shared ([`Http2Pool`]).

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{http1_connection::Http1Connection, http2::Http2Pool};

/// Maximum number of idle connections to one pod.
const MOST_IDLE: usize = 128;

/// Connections to one pod.
#[derive(Debug)]
pub(crate) struct Pool {
    http1: Mutex<IdleList>,
    pub(super) http2: Arc<Http2Pool>,
}

impl Default for Pool {
    fn default() -> Self {
        Self { http1: Mutex::default(), http2: Http2Pool::new() }
    }
}

#[derive(Debug, Default)]
struct IdleList {
    /// The most recently used is at the back.
    connections: VecDeque<Idle>,
    /// A task closes expired connections.
    closes_expired: bool,
}

#[derive(Debug)]
struct Idle {
    connection: Http1Connection,
    expires: Instant,
}

impl Idle {
    fn is_usable(&self, now: Instant) -> bool {
        self.expires > now && !self.connection.sender.is_closed()
    }
}

impl Pool {
    pub(super) fn take_idle(&self) -> Option<Http1Connection> {
        let now = Instant::now();
        let list = &mut self.http1.lock().connections;
        let mut busy = vec![];
        let mut found = None;
        while let Some(idle) = list.pop_back() {
            if !idle.is_usable(now) {
                continue;
            }
            if idle.connection.sender.is_ready() {
                found = Some(idle.connection);
                break;
            }
            // Its response has ended, but the rest of the request is still being sent, or its task has not run yet.
            busy.push(idle);
        }
        list.extend(busy.into_iter().rev());
        found
    }

    /// Keeps an idle connection. Returns whether a task has to be started that calls [`Self::close_expired`].
    pub(super) fn put(&self, connection: Http1Connection) -> bool {
        if connection.sender.is_closed() || connection.idle_limit.is_zero() {
            return false;
        }
        let expires = Instant::now() + connection.idle_limit;
        let mut list = self.http1.lock();
        while list.connections.len() >= MOST_IDLE {
            list.connections.pop_front();
        }
        list.connections.push_back(Idle { connection, expires });
        !std::mem::replace(&mut list.closes_expired, true)
    }

    /// Closes connections that have been idle for too long. Returns when the next one expires; after `None` the task
    /// that called ends.
    pub(super) fn close_expired(&self, now: Instant) -> Option<Instant> {
        let mut list = self.http1.lock();
        list.connections.retain(|idle| idle.is_usable(now));
        let next = list.connections.iter().map(|idle| idle.expires).min();
        list.closes_expired = next.is_some();
        next
    }
}
