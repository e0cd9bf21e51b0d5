//! Bodies: nothing of them is kept here, they only pass.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::copying::{Copied, Copying};
use crate::{admit::Lease, endpoints::Connection};

/// When bytes last went either way.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    last_ms: AtomicU64,
    /// All of the request has been taken to be sent.
    whole: AtomicBool,
}

/// The body of a request on its way to a pod.
#[derive(Debug)]
pub struct RequestBody {
    inner: Source,
    progress: Option<Arc<Progress>>,
    /// Where a copy of it goes.
    copy: Option<Arc<Copying>>,
}

/// Where the body of a request comes from.
#[derive(Debug)]
enum Source {
    None,
    Client(Incoming),
    /// It is a copy.
    Copied(Box<Copied>),
}

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

impl Progress {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), last_ms: AtomicU64::new(0), whole: AtomicBool::new(false) })
    }

    pub(super) fn touch(&self) {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(passed, Ordering::Relaxed);
    }

    pub(super) fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    /// Whether the pod has all of the request, so that only it can be what is waited for.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }
}

/// Trailers pass without what is Rouse's own and what only a head may say.
fn clean(frame: &mut Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
    if let Poll::Ready(Some(Ok(frame))) = frame
        && let Some(trailers) = frame.trailers_mut()
    {
        super::headers::trailers(trailers);
    }
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, progress: Option<Arc<Progress>>) -> Self {
        // One without a body is not asked for its end.
        if let Some(progress) = progress.as_ref().filter(|_| http_body::Body::is_end_stream(&inner)) {
            progress.whole.store(true, Ordering::Relaxed);
        }
        Self { inner: Source::Client(inner), progress, copy: None }
    }

    /// No body at all.
    pub(super) fn none() -> Self {
        Self { inner: Source::None, progress: None, copy: None }
    }

    /// One that was copied.
    pub(super) fn copied(copied: Copied) -> Self {
        Self { inner: Source::Copied(Box::new(copied)), progress: None, copy: None }
    }

    /// What passes from here on is copied.
    pub(super) fn copy_to(&mut self, copying: Arc<Copying>) {
        self.copy = Some(copying);
    }

    /// It goes where its copy would go.
    pub(super) fn end_copy(&mut self) {
        self.copy = None;
    }
}

impl RequestBody {
    /// Copies what passes. A body that says that it is over is not asked for its end.
    fn pass(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
        let over = match (frame, &self.copy) {
            (Poll::Ready(Some(Ok(frame))), Some(copy)) => {
                copy.pass(frame);
                http_body::Body::is_end_stream(self)
            }
            (Poll::Ready(Some(Err(_))), _) => {
                self.copy = None;
                false
            }
            (Poll::Ready(None), _) => true,
            _ => false,
        };
        if over && let Some(copy) = self.copy.take() {
            copy.end();
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut frame = match &mut self.inner {
            Source::None => return Poll::Ready(None),
            Source::Client(inner) => Pin::new(inner).poll_frame(cx),
            Source::Copied(inner) => Pin::new(inner.as_mut()).poll_frame(cx),
        };
        clean(&mut frame);
        if self.copy.is_some() {
            self.pass(&frame);
        }
        if frame.is_ready()
            && let Some(progress) = &self.progress
        {
            progress.touch();
            let over = match &frame {
                Poll::Ready(Some(Ok(_))) => self.is_end_stream(),
                Poll::Ready(None) => true,
                _ => false,
            };
            if over {
                progress.whole.store(true, Ordering::Relaxed);
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Source::None => true,
            Source::Client(inner) => inner.is_end_stream(),
            Source::Copied(inner) => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Source::None => SizeHint::with_exact(0),
            Source::Client(inner) => inner.size_hint(),
            Source::Copied(inner) => inner.size_hint(),
        }
    }
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
        clean(&mut frame);
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
