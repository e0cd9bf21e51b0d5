//! Request bodies on their way to a pod: streamed, not buffered.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    progress::Progress,
    tee::{BodyTee, CopiedBody},
    trailers::clean_trailers,
};
use crate::downstream::UploadWindow;

/// The body of a request on its way to a pod.
#[derive(Debug)]
pub struct RequestBody {
    inner: Source,
    progress: Option<Arc<Progress>>,
    /// Receives a copy of what passes.
    copy: Option<Arc<BodyTee>>,
    /// The receive window of an HTTP/2 stream.
    window: Option<Box<UploadWindow>>,
}

/// Source of a request body.
#[derive(Debug)]
enum Source {
    None,
    Client(Incoming),
    /// A mirrored request.
    Copied(Box<CopiedBody>),
}

impl RequestBody {
    pub(crate) fn new(inner: Incoming, progress: Option<Arc<Progress>>) -> Self {
        // A request without a body is never polled for its end.
        if let Some(progress) = progress.as_ref().filter(|_| http_body::Body::is_end_stream(&inner)) {
            progress.end();
        }
        Self { inner: Source::Client(inner), progress, copy: None, window: None }
    }

    /// Creates an empty body.
    pub(crate) fn none() -> Self {
        Self { inner: Source::None, progress: None, copy: None, window: None }
    }

    /// Creates the body of a mirrored request.
    pub(crate) fn copied(copied: CopiedBody) -> Self {
        Self { inner: Source::Copied(Box::new(copied)), progress: None, copy: None, window: None }
    }

    /// Sets the receive window of its HTTP/2 stream.
    pub(crate) fn with_window(mut self, window: Option<UploadWindow>) -> Self {
        self.window = window.map(Box::new);
        self
    }

    /// Copies what passes from now on.
    pub(crate) fn copy_to(&mut self, tee: Arc<BodyTee>) {
        self.copy = Some(tee);
    }

    /// Stops copying: the mirrored request is not sent.
    pub(crate) fn stop_copy(&mut self) {
        self.copy = None;
    }
}

impl RequestBody {
    /// Copies a frame. A body that reports its end is not polled for it.
    fn copy_frame(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
        let over = match (frame, &self.copy) {
            (Poll::Ready(Some(Ok(frame))), Some(copy)) => {
                copy.push(frame);
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

impl RequestBody {
    fn renew_window(&mut self, frame: &Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
        match frame {
            Poll::Pending => return,
            Poll::Ready(Some(Ok(frame))) if !http_body::Body::is_end_stream(self) => {
                if let (Some(window), Some(bytes)) = (&mut self.window, frame.data_ref()) {
                    window.on_read(bytes.len(), Instant::now());
                }
                return;
            }
            Poll::Ready(_) => {}
        }
        // Nothing more is expected, so others may have what the window held.
        self.window = None;
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
            self.copy_frame(&frame);
        }
        if self.window.is_some() {
            self.renew_window(&frame);
        }
        if let Some(progress) = &self.progress {
            let over = match &frame {
                Poll::Pending => {
                    progress.wait();
                    false
                }
                Poll::Ready(Some(Ok(frame))) => {
                    progress.receive(frame.data_ref().map_or(0, |data| data.len() as u64));
                    self.is_end_stream()
                }
                Poll::Ready(Some(Err(_))) => {
                    progress.fail();
                    false
                }
                Poll::Ready(None) => true,
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
