//! Response bodies: streamed, not buffered.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::in_pod::InPod;
use crate::body::{Progress, clean_trailers};

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
}

/// Idle timeout of a stream.
#[derive(Debug)]
struct IdleTimeout {
    limit: Duration,
    progress: Arc<Progress>,
    timer: Pin<Box<Sleep>>,
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
    pub(super) fn pod(inner: Incoming, in_pod: InPod, idle_timeout: Option<(Duration, Arc<Progress>)>) -> Self {
        let idle_timeout = idle_timeout.map(|(limit, progress)| {
            progress.touch();
            IdleTimeout { limit, progress, timer: Box::pin(sleep_until(Instant::now() + limit)) }
        });
        let mut body = PodBody { inner, in_pod, idle_timeout };
        body.end_if_over();
        Self::Pod(body)
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
        let body = match &mut *self {
            Self::Local(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pod(body) => body,
        };
        let mut frame = Pin::new(&mut body.inner).poll_frame(cx);
        clean_trailers(&mut frame);
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(idle_timeout) = &body.idle_timeout {
                    idle_timeout.progress.touch();
                }
                body.end_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                // The connection has failed, so there is nothing to abort.
                drop(body.in_pod.take());
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                body.end();
                Poll::Ready(None)
            }
            Poll::Pending => match body.idle_timeout.as_mut().map(|idle_timeout| idle_timeout.poll(cx)) {
                Some(Poll::Ready(error)) => {
                    body.in_pod.abort();
                    Poll::Ready(Some(Err(error)))
                }
                _ => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(bytes) => bytes.is_none(),
            Self::Pod(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Pod(body) => body.inner.size_hint(),
        }
    }
}

impl IdleTimeout {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let until = self.progress.last() + self.limit;
            if until <= Instant::now() {
                return Poll::Ready(BodyError::IdleTimeout(self.limit));
            }
            self.timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}
