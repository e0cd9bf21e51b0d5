//! HTTP/2 connections to one pod, and the streams on them.
//!
//! The HTTP library takes any number of requests for a connection and lets those beyond the pod's limit wait, unseen. So
//! streams are counted here. A request gets a stream that the pod takes at once, or waits in a queue for one, unsent.
//!
//! Requests share the connection that was opened first while it has few of them, so that the others become idle and are
//! closed. A busy pod has several connections, whose frames are read and written by several threads.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    announced::Announced,
    dial::{DialError, Dialer},
    http2_connect::{ConnectionEvent, Sender, connect},
};

/// Streams of a connection from which on another one is opened, up to [`SPREAD`].
const BUSY: u32 = 32;
/// Number of connections that are opened to spread the frames of a busy pod.
const SPREAD: usize = 4;
/// Streams of a connection, even if the pod allows more, as long as another connection may be opened.
const USUAL: u32 = 100;
/// Maximum number of connections to a pod.
const MOST: usize = 16;
/// How long a request waits for a stream before it is given back, unsent. Another pod may have one by then. Longer than a
/// connect, whose error is the better reason.
const WAIT: Duration = Duration::from_secs(5);
/// How long a connection without streams is kept beside another one.
const IDLE: Duration = Duration::from_secs(30);
/// Pause after a failed connect while other connections exist.
const RETRY: Duration = Duration::from_secs(1);

/// HTTP/2 connections to one pod.
#[derive(Debug)]
pub(crate) struct Http2Pool {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// At most [`MOST`], in the order in which they were opened.
    connections: Vec<Shared>,
    /// Connects in progress.
    opening: usize,
    /// Streams that a new connection is expected to take: what the last one announced.
    expected: u32,
    /// Requests that wait for a stream. Each holds a permit of the pod, which bounds them.
    waiting: VecDeque<oneshot::Sender<Result<Stream, DialError>>>,
    last_id: u64,
    /// No connect before this.
    retry_at: Option<Instant>,
    /// Address of the pod, from the first request on.
    target: Option<(SocketAddr, Dialer)>,
}

/// A connection that requests share.
#[derive(Debug)]
struct Shared {
    id: u64,
    sender: Sender,
    announced: Arc<Announced>,
    streams: u32,
    /// It has carried a request.
    used: bool,
    /// When its last stream ended.
    idle_since: Instant,
}

/// A stream of a connection, for one request. It is free again on drop.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) sender: Sender,
    /// The connection has carried a request before.
    pub(super) reused: bool,
    connection: u64,
    pool: Arc<Http2Pool>,
    /// Cleared if it has been freed.
    taken: bool,
}

/// An open connection, with its number.
type Opened = (Sender, Arc<Announced>, u64);

/// A connect in progress. Without a result on drop it has failed.
struct Opening {
    pool: Weak<Http2Pool>,
    result: Option<Result<Opened, DialError>>,
}

impl Http2Pool {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                connections: vec![],
                opening: 0,
                expected: USUAL,
                waiting: VecDeque::new(),
                last_id: 0,
                retry_at: None,
                target: None,
            }),
        })
    }

    /// Returns a stream if one is free, and nobody waits for it.
    pub(super) fn take(self: &Arc<Self>) -> Option<Stream> {
        let mut state = self.state.lock();
        // A busy connection is relieved by the next request that has to wait or finds none, in `stream`.
        if !state.waiting.is_empty() || state.wants_spread() {
            return None;
        }
        state.take(self)
    }

    /// Returns a stream as soon as one is free, and connects if that is needed.
    ///
    /// Cancel-safe: a stream that arrives after the drop of the future is free again.
    ///
    /// # Errors
    ///
    /// If no connection can be opened, or no stream was free in time.
    pub(super) async fn stream(self: &Arc<Self>, address: SocketAddr, dialer: &Dialer) -> Result<Stream, DialError> {
        let receiver = {
            let mut state = self.state.lock();
            state.target = Some((address, *dialer));
            let stream = if state.waiting.is_empty() { state.take(self) } else { None };
            if let Some(stream) = stream {
                let more = usize::from(state.wants_spread());
                self.open(&mut state, more);
                return Ok(stream);
            }
            let (sender, receiver) = oneshot::channel();
            // Those who have given up are dropped, so that only requests in progress are in the queue.
            state.waiting.retain(|waiting| !waiting.is_closed());
            state.waiting.push_back(sender);
            self.open(&mut state, 0);
            receiver
        };
        match timeout(WAIT, receiver).await {
            Ok(Ok(result)) => result,
            // The sender is not dropped while the pool exists.
            Ok(Err(_)) => Err(io::Error::other("the pod was removed").into()),
            Err(_) => Err(DialError::NoStream(WAIT)),
        }
    }

    /// Opens the connections that those who wait need, and `more`.
    fn open(self: &Arc<Self>, state: &mut State, more: usize) {
        let Some((address, dialer)) = state.target else { return };
        for _ in 0..state.missing(Instant::now(), more) {
            state.opening += 1;
            state.last_id += 1;
            let (pool, id) = (Arc::downgrade(self), state.last_id);
            let opening = Opening { pool: pool.clone(), result: None };
            let on_event = move |event| {
                if let Some(pool) = pool.upgrade() {
                    match event {
                        ConnectionEvent::Tick => pool.reap(id),
                        ConnectionEvent::Ended => pool.ended(),
                    }
                }
            };
            // Ends within the timeouts of a connect. Not a part of the request that asked for it: others wait too.
            tokio::spawn(async move {
                let connected = connect(&dialer, address, on_event).await;
                opening.finish(connected.map(|(sender, announced)| (sender, announced, id)));
            });
        }
    }

    fn opened(self: &Arc<Self>, result: Option<Result<Opened, DialError>>) {
        let mut state = self.state.lock();
        state.opening -= 1;
        match result {
            Some(Ok((sender, announced, id))) => {
                state.expected = announced.streams().clamp(1, USUAL);
                state.retry_at = None;
                let idle_since = Instant::now();
                state.connections.push(Shared { id, sender, announced, streams: 0, used: false, idle_since });
                state.serve(self);
            }
            failed => {
                let text = match failed {
                    Some(Err(error)) => error.to_string(),
                    _ => "the connect panicked".to_owned(),
                };
                state.forget_closed();
                if state.connections.is_empty() && state.opening == 0 {
                    for waiting in state.waiting.drain(..) {
                        // A receiver that is gone needs no error.
                        waiting.send(Err(io::Error::other(text.clone()).into())).ok();
                    }
                } else {
                    state.retry_at = Some(Instant::now() + RETRY);
                }
            }
        }
        self.open(&mut state, 0);
    }

    /// Frees a stream.
    fn release(self: &Arc<Self>, connection: u64) {
        let mut state = self.state.lock();
        if let Some(shared) = state.connections.iter_mut().find(|shared| shared.id == connection) {
            shared.streams -= 1;
            shared.idle_since = Instant::now();
        }
        state.serve(self);
    }

    /// Forgets a connection that has ended. Those who wait may need another one.
    fn ended(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.forget_closed();
        self.open(&mut state, 0);
    }

    /// Closes a connection that has been idle for long, unless it is the only one.
    fn reap(&self, connection: u64) {
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.connections.len() > 1 {
            // The last handle closes the connection.
            state
                .connections
                .retain(|c| c.id != connection || c.streams > 0 || now.saturating_duration_since(c.idle_since) < IDLE);
        }
    }
}

impl State {
    fn forget_closed(&mut self) {
        self.connections.retain(|shared| !shared.sender.is_closed() && !shared.announced.is_going_away());
    }

    /// Whether each connection is busy, and there may be more of them.
    fn wants_spread(&self) -> bool {
        self.opening == 0
            && self.connections.len() < SPREAD
            && self.connections.iter().all(|shared| shared.streams >= BUSY)
    }

    /// Takes a stream of the first connection that is not busy, or else of the one with the fewest.
    fn take(&mut self, pool: &Arc<Http2Pool>) -> Option<Stream> {
        self.forget_closed();
        let full = self.connections.len() >= MOST;
        let limit = |shared: &Shared| shared.announced.streams().min(if full { u32::MAX } else { USUAL });
        let free = |shared: &&mut Shared, most: u32| shared.streams < limit(shared).min(most);
        let shared = match self.connections.iter_mut().find(|shared| free(shared, BUSY)) {
            Some(shared) => shared,
            None => self.connections.iter_mut().filter(|c| free(c, u32::MAX)).min_by_key(|c| c.streams)?,
        };
        shared.streams += 1;
        let reused = std::mem::replace(&mut shared.used, true);
        Some(Stream { sender: shared.sender.clone(), reused, connection: shared.id, pool: pool.clone(), taken: true })
    }

    /// Gives free streams to those who wait, in the order of their arrival.
    fn serve(&mut self, pool: &Arc<Http2Pool>) {
        while let Some(next) = self.waiting.front() {
            if next.is_closed() {
                self.waiting.pop_front();
                continue;
            }
            let Some(stream) = self.take(pool) else { return };
            let Some(next) = self.waiting.pop_front() else { return };
            if let Err(Ok(stream)) = next.send(Ok(stream)) {
                self.put_back(stream);
            }
        }
    }

    /// Frees a stream whose receiver is gone. Its drop would need the lock that is held here.
    fn put_back(&mut self, mut stream: Stream) {
        stream.taken = false;
        if let Some(shared) = self.connections.iter_mut().find(|shared| shared.id == stream.connection) {
            shared.streams -= 1;
        }
    }

    /// Number of connections to open now: for those who wait, and `more`.
    fn missing(&self, now: Instant, more: usize) -> usize {
        if self.retry_at.is_some_and(|at| now < at) {
            return 0;
        }
        let expected = self.expected as usize;
        let unserved = self.waiting.len().saturating_sub(self.opening * expected);
        let places = MOST.saturating_sub(self.connections.len() + self.opening);
        (unserved.div_ceil(expected) + more).min(places)
    }
}

impl Opening {
    fn finish(mut self, result: Result<Opened, DialError>) {
        self.result = Some(result);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.taken {
            self.pool.release(self.connection);
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.opened(self.result.take());
        }
    }
}

#[cfg(test)]
mod tests;
