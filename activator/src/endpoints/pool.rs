//! The idle connections of one pod.
//!
//! HTTP/1.1 connections are used by one request at a time and kept for a short while afterwards; one HTTP/2 connection carries
//! all requests.

use std::{collections::VecDeque, time::Duration};

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::body::RequestBody;

/// How long an idle connection is kept. Servers close theirs after five seconds (Node, uvicorn) or later; reusing one in the
/// moment in which it is closed would cost the request.
const IDLE: Duration = Duration::from_secs(4);

/// Idle connections kept for one pod.
const MOST_IDLE: usize = 128;

/// The idle connections of one pod.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// The most recently used is at the back.
    http1: Mutex<VecDeque<Idle>>,
    http2: Mutex<Option<http2::SendRequest<RequestBody>>>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
}

impl Pool {
    pub(super) fn idle(&self) -> Option<http1::SendRequest<RequestBody>> {
        let now = Instant::now();
        let mut list = self.http1.lock();
        let mut busy = vec![];
        let mut found = None;
        while let Some(idle) = list.pop_back() {
            if idle.sender.is_closed() {
                continue;
            }
            if now.saturating_duration_since(idle.since) > IDLE {
                // Every other one is older still.
                list.clear();
                break;
            }
            if idle.sender.is_ready() {
                found = Some(idle.sender);
                break;
            }
            // Its answer is over but the rest of the request is still being sent, or its task has not yet run.
            busy.push(idle);
        }
        list.extend(busy.into_iter().rev());
        found
    }

    pub(super) fn keep(&self, sender: http1::SendRequest<RequestBody>) {
        if sender.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut list = self.http1.lock();
        while list.front().is_some_and(|idle| now.saturating_duration_since(idle.since) > IDLE)
            || list.len() >= MOST_IDLE
        {
            list.pop_front();
        }
        list.push_back(Idle { sender, since: now });
    }

    pub(super) fn shared(&self) -> Option<http2::SendRequest<RequestBody>> {
        self.http2.lock().as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    /// Two requests that connect at once make two connections; the first stays, the other ends with its request.
    pub(super) fn share(&self, sender: &http2::SendRequest<RequestBody>) {
        let mut shared = self.http2.lock();
        if shared.as_ref().is_none_or(http2::SendRequest::is_closed) {
            *shared = Some(sender.clone());
        }
    }
}
