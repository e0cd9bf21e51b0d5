//! Pool of idle connections to one pod.
//!
//! An HTTP/1.1 connection carries one request at a time and is kept for a short time afterwards. One HTTP/2 connection
//! carries all requests.

use std::{collections::VecDeque, time::Duration};

use hyper::client::conn::{http1, http2};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::body::RequestBody;

/// How long an idle connection is kept. Servers close theirs after five seconds (Node, uvicorn) or later; a request on
/// a connection that is being closed would be lost.
const IDLE: Duration = Duration::from_secs(4);

/// Maximum number of idle connections to one pod.
const MOST_IDLE: usize = 128;

/// Idle connections to one pod.
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
    pub(super) fn take_idle(&self) -> Option<http1::SendRequest<RequestBody>> {
        let now = Instant::now();
        let mut list = self.http1.lock();
        let mut busy = vec![];
        let mut found = None;
        while let Some(idle) = list.pop_back() {
            if idle.sender.is_closed() {
                continue;
            }
            if now.saturating_duration_since(idle.since) > IDLE {
                // The remaining ones are older still.
                list.clear();
                break;
            }
            if idle.sender.is_ready() {
                found = Some(idle.sender);
                break;
            }
            // Its response has ended, but the rest of the request is still being sent, or its task has not run yet.
            busy.push(idle);
        }
        list.extend(busy.into_iter().rev());
        found
    }

    pub(super) fn put(&self, sender: http1::SendRequest<RequestBody>) {
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

    pub(super) fn http2(&self) -> Option<http2::SendRequest<RequestBody>> {
        self.http2.lock().as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    /// Shares an HTTP/2 connection. Of two requests that connect at once the first connection stays, the other ends
    /// with its request.
    pub(super) fn set_http2(&self, sender: &http2::SendRequest<RequestBody>) {
        let mut shared = self.http2.lock();
        if shared.as_ref().is_none_or(http2::SendRequest::is_closed) {
            *shared = Some(sender.clone());
        }
    }
}
