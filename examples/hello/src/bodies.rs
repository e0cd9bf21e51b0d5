//! Response bodies.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, SizeHint};

/// A response body.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// Creates a body from its whole content.
pub(crate) fn whole(content: impl Into<Bytes>) -> ResponseBody {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Creates a body of `count` parts, the first at once and each further one `interval` later; `None` is endless. `part`
/// returns part number n, from 1.
pub(crate) fn parts(count: Option<u64>, interval: Duration, part: fn(u64) -> String) -> ResponseBody {
    let stream = futures::stream::unfold(1u64, move |n| async move {
        if count.is_some_and(|count| n > count) {
            return None;
        }
        if n > 1 {
            tokio::time::sleep(interval).await;
        }
        Some((Ok(Frame::data(Bytes::from(part(n)))), n + 1))
    });
    StreamBody::new(stream).boxed_unsync()
}

/// Repeated block, so that the size of a body costs no memory.
static BLOCK: [u8; 65536] = [b'.'; 65536];

/// Creates a body of `bytes` dots.
pub(crate) fn dots(bytes: u64) -> ResponseBody {
    Dots { left: bytes }.boxed_unsync()
}

struct Dots {
    left: u64,
}

impl Body for Dots {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(BLOCK.len());
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&BLOCK[..length])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn dots_have_the_exact_length() {
        for bytes in [0, 1, 65536, 200_000] {
            let body = dots(bytes);
            assert_eq!(body.size_hint().exact(), Some(bytes));
            assert_eq!(body.collect().await.unwrap().to_bytes().len() as u64, bytes);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn parts_are_sent_at_the_interval() {
        let start = Instant::now();
        let mut body = parts(Some(3), Duration::from_secs(1), |n| format!("{n};"));
        let mut seen = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            seen.push((String::from_utf8(data.to_vec()).unwrap(), start.elapsed().as_secs()));
        }
        assert_eq!(seen, [("1;".to_owned(), 0), ("2;".to_owned(), 1), ("3;".to_owned(), 2)]);
    }
}
