//! The gRPC health check, `grpc.health.v1.Health/Check`: its two messages, each of one field.
//!
//! A gRPC message has a prefix of one byte for compression and four for the length.

use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Bytes};

/// Path of the method.
const PATH: &str = "/grpc.health.v1.Health/Check";

/// `SERVING` in `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// Maximum length of a response. That of a serving server has 7 bytes.
const MAX_RESPONSE: usize = 1024;

/// Returns the request that checks a service; an empty name checks the whole server.
pub(super) fn request(host: &str, service: &str) -> http::Result<Request<Full<Bytes>>> {
    Request::post(format!("http://{host}{PATH}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "rouse-probe")
        .body(Full::new(frame(&message(service)).into()))
}

/// Reads the response to the end, and returns whether the service serves.
pub(super) async fn is_serving<B>(response: Response<B>) -> bool
where
    B: Body + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        return false;
    }
    let Ok(body) = Limited::new(body, MAX_RESPONSE).collect().await else { return false };
    let ok = |headers: &HeaderMap| headers.get("grpc-status").map(|status| status == HeaderValue::from_static("0"));
    // A response without a message has its status in the headers.
    let succeeded = body.trailers().and_then(ok).or_else(|| ok(&head.headers)) == Some(true);
    succeeded && status(&body.to_bytes()) == Some(SERVING)
}

/// Encodes `HealthCheckRequest { service: 1 }`.
fn message(service: &str) -> Vec<u8> {
    if service.is_empty() {
        return vec![];
    }
    let mut message = vec![1 << 3 | 2];
    put_varint(&mut message, service.len() as u64);
    message.extend_from_slice(service.as_bytes());
    message
}

/// Adds the prefix of an uncompressed message.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), message].concat()
}

/// Decodes `HealthCheckResponse { status: 1 }` with its prefix. A status of zero is not on the wire. Other fields are
/// skipped.
fn status(body: &[u8]) -> Option<u64> {
    let (prefix, mut message) = body.split_at_checked(5)?;
    if prefix[0] != 0 || prefix[1..] != u32::try_from(message.len()).ok()?.to_be_bytes() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => status = take_varint(&mut message)?,
            (_, 0) => drop(take_varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = take_varint(&mut message)?;
                message = message.get(usize::try_from(length).ok()?..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn put_varint(into: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        into.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn requests_are_encoded() {
        assert_eq!(frame(&message("")), [0, 0, 0, 0, 0]);
        assert_eq!(frame(&message("a.B")), [0, 0, 0, 0, 5, 10, 3, b'a', b'.', b'B']);
        let long = "s".repeat(300);
        assert_eq!(frame(&message(&long))[..8], [0, 0, 0, 1, 47, 10, 0xac, 2]);
    }

    #[rstest]
    #[case::serving(&[0, 0, 0, 0, 2, 8, 1], Some(1))]
    #[case::not_serving(&[0, 0, 0, 0, 2, 8, 2], Some(2))]
    #[case::unknown(&[0, 0, 0, 0, 0], Some(0))]
    #[case::other_fields(&[0, 0, 0, 0, 23, 0x10, 0x96, 1, 0x1a, 1, 7, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x2d, 1, 2, 3, 4, 8, 1, 8], None)]
    #[case::skipped_fields(&[0, 0, 0, 0, 22, 0x10, 0x96, 1, 0x1a, 1, 7, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x2d, 1, 2, 3, 4, 8, 1], Some(1))]
    #[case::compressed(&[1, 0, 0, 0, 2, 8, 1], None)]
    #[case::cut_off(&[0, 0, 0, 0, 2, 8], None)]
    #[case::two_messages(&[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 1], None)]
    #[case::no_prefix(&[0, 0, 0], None)]
    #[case::endless_varint(&[0, 0, 0, 0, 12, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255], None)]
    #[case::length_beyond_the_end(&[0, 0, 0, 0, 2, 0x12, 9], None)]
    fn responses_are_decoded(#[case] body: &[u8], #[case] expected: Option<u64>) {
        assert_eq!(status(body), expected);
    }

    #[rstest]
    #[case::serving(200, "0", &[0, 0, 0, 0, 2, 8, 1], true)]
    #[case::not_serving(200, "0", &[0, 0, 0, 0, 2, 8, 2], false)]
    #[case::unimplemented(200, "12", &[], false)]
    #[case::failed_after_a_message(200, "13", &[0, 0, 0, 0, 2, 8, 1], false)]
    #[case::not_grpc(503, "0", &[0, 0, 0, 0, 2, 8, 1], false)]
    #[tokio::test]
    async fn only_serving_counts(
        #[case] status: u16,
        #[case] grpc_status: &'static str,
        #[case] body: &'static [u8],
        #[case] expected: bool,
    ) {
        let response =
            Response::builder().status(status).header("grpc-status", grpc_status).body(Full::new(Bytes::from(body)));
        assert_eq!(is_serving(response.unwrap()).await, expected);
        let endless = futures::stream::repeat_with(|| {
            Ok::<_, std::convert::Infallible>(http_body::Frame::data(Bytes::from_static(&[0; 64])))
        });
        assert!(!is_serving(Response::new(http_body_util::StreamBody::new(endless))).await);
    }
}
