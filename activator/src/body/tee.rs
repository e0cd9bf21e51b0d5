//! Tee of a request body: copies its bytes as they pass, and never asks for more of them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Maximum size of a copied body in bytes.
pub(crate) const LONGEST: u64 = 64 << 10;

/// The copy of a body in progress. Its receiver stops waiting when this is dropped.
#[derive(Debug)]
pub(crate) struct BodyTee(Mutex<Option<Passed>>);

#[derive(Debug)]
struct Passed {
    /// An own buffer: a frame may be a small part of a large buffer.
    bytes: BytesMut,
    trailers: Option<HeaderMap>,
    done: oneshot::Sender<Option<CopiedBody>>,
}

/// A complete copied body.
#[derive(Debug)]
pub(crate) struct CopiedBody {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

impl BodyTee {
    /// Creates an empty copy, and the receiver of its result: the whole body, or `None` if it is too long.
    pub(crate) fn new() -> (Arc<Self>, oneshot::Receiver<Option<CopiedBody>>) {
        let (done, copied) = oneshot::channel();
        let passed = Passed { bytes: BytesMut::new(), trailers: None, done };
        (Arc::new(Self(Mutex::new(Some(passed)))), copied)
    }

    /// Copies a frame.
    pub(crate) fn push(&self, frame: &Frame<Bytes>) {
        let mut passed = self.0.lock();
        let Some(copy) = &mut *passed else { return };
        if let Some(bytes) = frame.data_ref() {
            if (copy.bytes.len() + bytes.len()) as u64 > LONGEST {
                // The receiver may have stopped waiting.
                passed.take().map(|copy| copy.done.send(None).ok());
            } else {
                copy.bytes.extend_from_slice(bytes);
            }
        } else {
            copy.trailers = frame.trailers_ref().cloned();
        }
    }

    /// Completes the copy.
    pub(crate) fn end(&self) {
        if let Some(Passed { bytes, trailers, done }) = self.0.lock().take() {
            done.send(Some(CopiedBody { bytes: bytes.freeze(), trailers })).ok();
        }
    }

    /// Drops the copy: nobody waits for it any more.
    pub(crate) fn cancel(&self) {
        self.0.lock().take();
    }
}

impl Body for CopiedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // HTTP/1.1 allows trailers only with a body of unknown length.
        if self.trailers.is_some() { SizeHint::default() } else { SizeHint::with_exact(self.bytes.len() as u64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    fn data(length: usize) -> Frame<Bytes> {
        Frame::data(vec![b'x'; length].into())
    }

    #[tokio::test]
    async fn a_copied_body_is_complete_or_absent() {
        let longest = usize::try_from(LONGEST).unwrap();
        let (tee, copied) = BodyTee::new();
        tee.push(&data(1));
        tee.push(&data(longest - 1));
        tee.push(&Frame::trailers(HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())])));
        tee.end();
        let whole = copied.await.unwrap().unwrap().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["etag"], "x");
        assert_eq!(whole.to_bytes().len(), longest);

        let (tee, copied) = BodyTee::new();
        tee.push(&data(longest));
        tee.push(&data(1));
        assert!(copied.await.unwrap().is_none(), "one byte too many");
        tee.push(&data(1));
        tee.end();

        let (tee, copied) = BodyTee::new();
        tee.push(&data(1));
        drop(tee);
        assert!(copied.await.is_err(), "it broke off");

        let (tee, copied) = BodyTee::new();
        tee.push(&data(1));
        tee.cancel();
        assert!(copied.await.is_err() && tee.0.lock().is_none(), "nothing is kept");
    }
}
