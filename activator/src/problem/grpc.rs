//! Error responses to gRPC requests: a single head with `grpc-status` ("trailers-only").
//!
//! A gRPC library reads no problem document. Without `grpc-status` it derives a status from that of HTTP, which turns an
//! unknown host into `UNIMPLEMENTED` and a full queue into `UNAVAILABLE`, and loses the reason.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{Kind, Problem};

/// Name of the problem type, as the last part of `type` in a problem document.
pub const ROUSE_PROBLEM: HeaderName = HeaderName::from_static("rouse-problem");

const GRPC: &str = "application/grpc";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What `grpc-message` percent-encodes: everything but printable ASCII, and the percent sign.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');
/// Maximum length of `grpc-message` in bytes before it is encoded. A library refuses heads of more than 8 KiB or 16 KiB.
const LONGEST_MESSAGE: usize = 1024;

/// Status code of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The deadline passed. The request may have had an effect.
    DeadlineExceeded = 4,
    /// There is no such function.
    NotFound = 5,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// The function does not serve this method.
    Unimplemented = 12,
    /// The request violates the protocol.
    Internal = 13,
    /// The function cannot serve now; the request may be retried.
    Unavailable = 14,
}

impl Status {
    /// Returns the name of the status, as the gRPC documentation writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::NotFound => "NOT_FOUND",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Internal => "INTERNAL",
            Self::Unavailable => "UNAVAILABLE",
        }
    }

    /// Returns the number of the status.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl Kind {
    /// Returns the status of a gRPC response.
    #[must_use]
    pub fn grpc_status(self) -> Status {
        match self {
            Self::BadRequest | Self::AmbiguousPath | Self::ExpectationFailed | Self::LoopDetected => Status::Internal,
            Self::UnknownHost | Self::FunctionDeleted => Status::NotFound,
            Self::UnknownPath | Self::MethodNotAllowed | Self::NotSupported => Status::Unimplemented,
            Self::QueueFull | Self::WakeThrottled | Self::HeaderTooLarge | Self::UriTooLong => {
                Status::ResourceExhausted
            }
            Self::ResponseTimeout | Self::DeadlineExceeded => Status::DeadlineExceeded,
            // No pod has had the request, or the pod that had it is gone.
            Self::ColdStartTimeout
            | Self::RequestTimeout
            | Self::FunctionFailing
            | Self::ShuttingDown
            | Self::Overloaded
            | Self::PodUnreachable
            | Self::BadResponse => Status::Unavailable,
        }
    }
}

/// Whether a request is a gRPC request. gRPC-Web is another protocol: a browser reads its status from the body, or from
/// that of HTTP.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let Some((start, rest)) = content_type.split_at_checked(GRPC.len()) else { return false };
    start.eq_ignore_ascii_case(GRPC.as_bytes()) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

impl Problem {
    /// Returns the trailers-only response to a gRPC request.
    pub(super) fn grpc_response(&self, request_id: &str) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(GRPC));
        headers.insert(GRPC_STATUS, u16::from(self.kind.grpc_status().code()).into());
        headers.insert(GRPC_MESSAGE, message(&self.detail));
        headers.insert(ROUSE_PROBLEM, HeaderValue::from_static(self.kind.name()));
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(delay) = self.retry_after {
            headers.insert(GRPC_RETRY_PUSHBACK, pushback(delay));
        }
        response
    }
}

/// Encodes a text as `grpc-message`.
fn message(text: &str) -> HeaderValue {
    let text = &text[..text.floor_char_boundary(LONGEST_MESSAGE)];
    // What is encoded is printable ASCII.
    HeaderValue::try_from(utf8_percent_encode(text, ENCODED).to_string()).unwrap_or(HeaderValue::from_static(""))
}

/// Milliseconds until a retry. Rounded up: zero would mean at once.
fn pushback(delay: Duration) -> HeaderValue {
    let ms = delay.as_nanos().div_ceil(1_000_000).max(1);
    u64::try_from(ms).unwrap_or(u64::MAX).into()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("application/grpc", true)]
    #[case("application/grpc+proto", true)]
    #[case("Application/gRPC; charset=utf-8", true)]
    #[case("application/grpc-web+proto", false)]
    #[case("application/grpcx", false)]
    #[case("application/grp", false)]
    #[case("application/json", false)]
    fn the_content_type_identifies_grpc(#[case] content_type: &str, #[case] grpc: bool) {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.parse().unwrap())]);
        assert_eq!(is_grpc(&headers), grpc);
    }

    #[rstest]
    #[case("plain text ~", "plain text ~")]
    #[case("100 %", "100 %25")]
    #[case("a\r\nb: \u{7f}", "a%0D%0Ab: %7F")]
    #[case("größe ☃", "gr%C3%B6%C3%9Fe %E2%98%83")]
    fn a_message_is_percent_encoded(#[case] text: &str, #[case] encoded: &str) {
        assert_eq!(message(text), encoded);
    }

    #[test]
    fn a_message_is_bounded_and_cut_between_characters() {
        let encoded = message(&"☃".repeat(2000));
        assert_eq!(encoded.len(), LONGEST_MESSAGE / 3 * 9);
        assert!(percent_encoding::percent_decode(encoded.as_bytes()).decode_utf8().is_ok());
    }

    #[rstest]
    #[case(Duration::ZERO, "1")]
    #[case(Duration::from_micros(1500), "2")]
    #[case(Duration::from_secs(2), "2000")]
    fn the_pushback_is_in_milliseconds(#[case] delay: Duration, #[case] value: &str) {
        assert_eq!(pushback(delay), value);
    }
}
