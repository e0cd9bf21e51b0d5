//! Trailers, cleaned as they pass.

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;

use crate::hop_by_hop;

/// Trailers pass without what is Rouse's own and what only a head may say.
pub(crate) fn clean_trailers(frame: &mut Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
    if let Poll::Ready(Some(Ok(frame))) = frame
        && let Some(trailers) = frame.trailers_mut()
    {
        hop_by_hop::clean_trailers(trailers);
    }
}
