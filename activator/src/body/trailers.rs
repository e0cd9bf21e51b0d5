//! Cleaning of trailers as they pass.

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;

use crate::hop_by_hop;

/// Removes internal headers from trailers, and fields that are allowed in a head only.
pub(crate) fn clean_trailers(frame: &mut Poll<Option<Result<Frame<Bytes>, hyper::Error>>>) {
    if let Poll::Ready(Some(Ok(frame))) = frame
        && let Some(trailers) = frame.trailers_mut()
    {
        hop_by_hop::clean_trailers(trailers);
    }
}
