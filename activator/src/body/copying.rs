//! The copy of a body that is on its way: taken as its bytes pass, and never asking for more of them.

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

/// Longest body that is copied, in bytes.
pub(crate) const LONGEST: u64 = 64 << 10;

/// What has passed of a body. Where it goes stops waiting for it when this is dropped.
#[derive(Debug)]
pub(crate) struct Copying(Mutex<Option<Passed>>);

#[derive(Debug)]
struct Passed {
    /// Bytes of its own: what passes may be a small part of a large buffer.
    bytes: BytesMut,
    trailers: Option<HeaderMap>,
    done: oneshot::Sender<Option<Copied>>,
}

/// A whole body.
#[derive(Debug)]
pub(crate) struct Copied {
    bytes: Bytes,
    trailers: Option<HeaderMap>,
}

impl Copying {
    /// A copy that has nothing yet, and what its end is told by: the whole, or nothing if it is too long.
    pub(crate) fn new() -> (Arc<Self>, oneshot::Receiver<Option<Copied>>) {
        let (done, copied) = oneshot::channel();
        let passed = Passed { bytes: BytesMut::new(), trailers: None, done };
        (Arc::new(Self(Mutex::new(Some(passed)))), copied)
    }

    /// This passes.
    pub(crate) fn pass(&self, frame: &Frame<Bytes>) {
        let mut passed = self.0.lock();
        let Some(copy) = &mut *passed else { return };
        if let Some(bytes) = frame.data_ref() {
            if (copy.bytes.len() + bytes.len()) as u64 > LONGEST {
                // Whoever does not wait for it any more does not need to be told.
                passed.take().map(|copy| copy.done.send(None).ok());
            } else {
                copy.bytes.extend_from_slice(bytes);
            }
        } else {
            copy.trailers = frame.trailers_ref().cloned();
        }
    }

    /// All has passed.
    pub(crate) fn end(&self) {
        if let Some(Passed { bytes, trailers, done }) = self.0.lock().take() {
            done.send(Some(Copied { bytes: bytes.freeze(), trailers })).ok();
        }
    }

    /// It is not waited for any longer.
    pub(crate) fn give_up(&self) {
        self.0.lock().take();
    }
}

impl Body for Copied {
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
        // By HTTP/1.1, trailers go with a body of unknown length only.
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
    async fn a_body_is_whole_or_nothing() {
        let longest = usize::try_from(LONGEST).unwrap();
        let (copying, copied) = Copying::new();
        copying.pass(&data(1));
        copying.pass(&data(longest - 1));
        copying.pass(&Frame::trailers(HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())])));
        copying.end();
        let whole = copied.await.unwrap().unwrap().collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["etag"], "x");
        assert_eq!(whole.to_bytes().len(), longest);

        let (copying, copied) = Copying::new();
        copying.pass(&data(longest));
        copying.pass(&data(1));
        assert!(copied.await.unwrap().is_none(), "one byte too many");
        copying.pass(&data(1));
        copying.end();

        let (copying, copied) = Copying::new();
        copying.pass(&data(1));
        drop(copying);
        assert!(copied.await.is_err(), "it broke off");

        let (copying, copied) = Copying::new();
        copying.pass(&data(1));
        copying.give_up();
        assert!(copied.await.is_err() && copying.0.lock().is_none(), "nothing is kept");
    }
}
