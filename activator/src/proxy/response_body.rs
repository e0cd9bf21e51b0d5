//! The body of an answer: nothing of it is kept here, it only passes.

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

use crate::{
    admit::Lease,
    body::{Progress, clean_trailers},
    endpoints::Connection,
};

/// The body of an answer.
#[allow(clippy::large_enum_variant, reason = "nearly every answer is a pod's, and a box would cost each an allocation")]
#[derive(Debug)]
pub enum Body {
    /// Rouse's own words.
    Own(Option<Bytes>),
    /// A pod's.
    Pod(PodBody),
}

/// The body of a pod's answer. The request is in the pod until this ends or is dropped.
#[derive(Debug)]
pub struct PodBody {
    inner: Incoming,
    /// Taken at the end of the body.
    held: Option<(Connection, Lease)>,
    silence: Option<Silence>,
}

/// A limit on the time without any byte.
#[derive(Debug)]
struct Silence {
    limit: Duration,
    progress: Arc<Progress>,
    timer: Pin<Box<Sleep>>,
}

/// What ends a body before its time.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The pod's side broke.
    #[error("the pod's answer broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// `timeouts.idle` of the Function.
    #[error("no byte went either way for {0:?}")]
    Silent(Duration),
}

impl Body {
    /// Rouse's own words.
    #[must_use]
    pub fn full(bytes: Bytes) -> Self {
        Self::Own(Some(bytes).filter(|b| !b.is_empty()))
    }

    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::Own(None)
    }

    /// A pod's answer; `connection` goes back to its pool and `lease` ends when it has been read to its end.
    pub(super) fn pod(
        inner: Incoming,
        connection: Connection,
        lease: Lease,
        silence: Option<(Duration, Arc<Progress>)>,
    ) -> Self {
        let silence = silence.map(|(limit, progress)| {
            progress.touch();
            Silence { limit, progress, timer: Box::pin(sleep_until(Instant::now() + limit)) }
        });
        let mut body = PodBody { inner, held: Some((connection, lease)), silence };
        body.end_if_over();
        Self::Pod(body)
    }
}

impl PodBody {
    fn end(&mut self) {
        if let Some((connection, lease)) = self.held.take() {
            connection.give_back(lease.endpoint());
        }
    }

    /// A server does not ask a body that says it is over for its end.
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
            Self::Own(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Pod(body) => body,
        };
        let mut frame = Pin::new(&mut body.inner).poll_frame(cx);
        clean_trailers(&mut frame);
        match frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(silence) = &body.silence {
                    silence.progress.touch();
                }
                body.end_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                // The connection is not given back: its state is unknown.
                body.held = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                body.end();
                Poll::Ready(None)
            }
            Poll::Pending => match body.silence.as_mut().map(|silence| silence.poll(cx)) {
                Some(Poll::Ready(error)) => {
                    body.held = None;
                    Poll::Ready(Some(Err(error)))
                }
                _ => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Pod(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Pod(body) => body.inner.size_hint(),
        }
    }
}

impl Silence {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let until = self.progress.last() + self.limit;
            if until <= Instant::now() {
                return Poll::Ready(BodyError::Silent(self.limit));
            }
            self.timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}
