//! Response bodies: streamed, not buffered.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::in_pod::InPod;
use crate::{
    body::{Progress, clean_trailers},
    downstream::{LazyTimer, Peer, record_body_poll},
};

/// The body of a response.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every response is a pod's, and a box would cost each an allocation"
)]
#[derive(Debug)]
pub enum Body {
    /// Rouse's own response.
    Local(Option<Bytes>),
    /// A pod's response.
    Pod(PodBody),
}

/// The body of a pod's response. The request is in flight until this ends or is dropped.
#[derive(Debug)]
pub struct PodBody {
    inner: Incoming,
    /// Taken at the end of the body.
    in_pod: InPod,
    idle_timeout: Option<IdleTimeout>,
    splits: bool,
    /// The last byte of a part.
    tail: Option<Bytes>,
}

/// HTTP/2: of a larger part, the last byte is passed on by itself. The library takes a whole part as soon as the stream
/// has any window, and the next one only when there is window beyond it. So the task of the stream does not end, and its
/// timeout does not either, while the library still holds more than a byte of the response.
const SPLIT: usize = 4 << 10;

/// Idle timeout of a response. Runs while the pod is waited for: a client that does not read has the timeouts of its
/// connection and its HTTP/2 stream.
#[derive(Debug)]
pub(super) struct IdleTimeout {
    limit: Duration,
    /// Progress of the request body, if there is one.
    progress: Option<Arc<Progress>>,
    /// When the wait for the pod began.
    since: Option<Instant>,
    /// The timer of the connection, while the pod is waited for.
    timer: Option<LazyTimer>,
    peer: Arc<Peer>,
}

/// What ends a body early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection to the pod failed.
    #[error("the connection to the pod failed: {0}")]
    Broken(#[from] hyper::Error),
    /// `timeouts.idle` of the Function.
    #[error("idle timeout of {0:?} reached")]
    IdleTimeout(Duration),
}

impl Body {
    /// Creates a body of these bytes.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self::Local(Some(bytes).filter(|b| !b.is_empty()))
    }

    /// Creates an empty body.
    #[must_use]
    pub fn empty() -> Self {
        Self::Local(None)
    }

    /// Creates the body of a pod's response. At its end the connection returns to its pool and the permit is released.
    pub(super) fn pod(inner: Incoming, in_pod: InPod, idle_timeout: Option<IdleTimeout>) -> Self {
        let mut body = PodBody { inner, in_pod, idle_timeout, splits: false, tail: None };
        body.end_if_over();
        Self::Pod(body)
    }

    /// Sets whether the client uses HTTP/2.
    pub(super) fn for_http2(mut self, http2: bool) -> Self {
        if let Self::Pod(body) = &mut self {
            body.splits = http2;
        }
        self
    }
}

impl PodBody {
    fn end(&mut self) {
        if let Some((connection, permit)) = self.in_pod.take() {
            connection.recycle(permit.endpoint());
        }
    }

    /// A server does not poll a body that reports its end.
    fn end_if_over(&mut self) {
        if http_body::Body::is_end_stream(&self.inner) {
            self.end();
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (frame, idle) = match &mut *self {
            Self::Local(bytes) => (Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))), None),
            Self::Pod(body) => (body.poll_frame(cx), body.idle_timeout.as_ref().map(|idle| idle.limit)),
        };
        record_body_poll(matches!(&frame, Poll::Ready(Some(Ok(frame))) if frame.is_data()), idle);
        frame
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(bytes) => bytes.is_none(),
            Self::Pod(body) => body.tail.is_none() && body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Pod(body) => body.inner.size_hint(),
        }
    }
}

impl PodBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(tail) = self.tail.take() {
            return Poll::Ready(Some(Ok(Frame::data(tail))));
        }
        let mut frame = http_body::Body::poll_frame(Pin::new(&mut self.inner), cx);
        clean_trailers(&mut frame);
        match frame {
            Poll::Ready(Some(Ok(mut frame))) => {
                if self.splits
                    && let Some(data) = frame.data_mut().filter(|data| data.len() > SPLIT)
                {
                    self.tail = Some(data.split_off(data.len() - 1));
                }
                if let Some(idle_timeout) = &mut self.idle_timeout {
                    idle_timeout.since = None;
                }
                self.end_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                // The connection has failed, so there is nothing to abort.
                drop(self.in_pod.take());
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(idle_timeout) = &mut self.idle_timeout else { return Poll::Pending };
                let error = ready!(idle_timeout.poll(cx));
                self.in_pod.abort();
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl IdleTimeout {
    pub(super) fn new(limit: Duration, progress: Option<Arc<Progress>>, peer: Arc<Peer>) -> Self {
        Self { limit, progress, since: None, timer: None, peer }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        loop {
            let last = self.progress.as_ref().map_or(since, |progress| progress.last().max(since));
            let until = last + self.limit;
            ready!(self.timer.get_or_insert_with(|| self.peer.timer.take(until)).poll_until(cx, until));
            if self.progress.as_ref().is_none_or(|progress| progress.last() <= last) {
                return Poll::Ready(BodyError::IdleTimeout(self.limit));
            }
        }
    }
}

impl Drop for IdleTimeout {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.peer.timer.put(timer);
        }
    }
}
