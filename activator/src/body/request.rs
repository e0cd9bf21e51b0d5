//! The body of a request on its way to a pod: nothing of it is kept here, it only passes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    copying::{Copied, Copying},
    progress::Progress,
    trailers::clean_trailers,
};

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

impl RequestBody {
    pub(crate) fn new(inner: Incoming, progress: Option<Arc<Progress>>) -> Self {
        // One without a body is not asked for its end.
        if let Some(progress) = progress.as_ref().filter(|_| http_body::Body::is_end_stream(&inner)) {
            progress.end();
        }
        Self { inner: Source::Client(inner), progress, copy: None }
    }

    /// No body at all.
    pub(crate) fn none() -> Self {
        Self { inner: Source::None, progress: None, copy: None }
    }

    /// One that was copied.
    pub(crate) fn copied(copied: Copied) -> Self {
        Self { inner: Source::Copied(Box::new(copied)), progress: None, copy: None }
    }

    /// What passes from here on is copied.
    pub(crate) fn copy_to(&mut self, copying: Arc<Copying>) {
        self.copy = Some(copying);
    }

    /// It goes where its copy would go.
    pub(crate) fn end_copy(&mut self) {
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
        clean_trailers(&mut frame);
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
                progress.end();
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
