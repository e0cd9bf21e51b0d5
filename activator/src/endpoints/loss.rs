//! Loss of a request: it was written to a connection, and there is no response.

use std::{
    error::Error,
    io::{self, ErrorKind},
};

use super::pod_stream::PodStream;

/// Why a request that was written has no response, with a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The pod guarantees that it has not processed the request.
    Refused(String),
    /// The pod closed the connection before it read the whole request, and sent nothing.
    Unread(String),
    /// The request body failed on the client's side.
    RequestBody(String),
    /// The pod may have processed the request, or sent an invalid response.
    Other(String),
}

/// Classifies the loss of an HTTP/1.1 request. Waits for a reset if the stream ended.
pub(super) async fn http1_loss(error: hyper::Error, stream: &PodStream) -> Loss {
    if error.is_user() {
        return Loss::RequestBody(error.to_string());
    }
    if error.is_parse_too_large() {
        return Loss::Other("the head of the response is larger than 32 KiB or has more than 256 fields".to_owned());
    }
    let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe, ErrorKind::ConnectionAborted];
    let is_unread = !error.is_parse()
        && !stream.has_responded()
        && match source::<io::Error>(&error) {
            Some(error) => reset.contains(&error.kind()),
            None => error.is_incomplete_message() && stream.is_reset().await,
        };
    if is_unread { Loss::Unread(error.to_string()) } else { Loss::Other(error.to_string()) }
}

/// Classifies the loss of an HTTP/2 request (RFC 9113, section 8.7).
pub(super) fn http2_loss(error: &hyper::Error) -> Loss {
    let detail = error.to_string();
    if error.is_user() {
        return Loss::RequestBody(detail);
    }
    match source::<h2::Error>(error) {
        // The library reports a GOAWAY to the streams above its last stream id only.
        Some(error) if error.is_remote() && error.is_go_away() => Loss::Refused(detail),
        Some(error) if error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM) => {
            Loss::Refused(detail)
        }
        _ => Loss::Other(detail),
    }
}

fn source<E: Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
