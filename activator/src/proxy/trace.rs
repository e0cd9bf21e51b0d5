//! Request ids and W3C trace context.

use http::{HeaderMap, HeaderValue};
use rand::Rng;

use crate::hop_by_hop::{REQUEST_ID, TRACEPARENT, TRACESTATE};

/// Maximum length of a client's request id.
const LONGEST_ID: usize = 128;

/// Returns the id of a request: the client's if it is fit for logs, otherwise a new one, which is added to the headers.
pub(super) fn request_id(headers: &mut HeaderMap) -> HeaderValue {
    let fit = |value: &&HeaderValue| {
        !value.is_empty() && value.len() <= LONGEST_ID && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    if let Some(id) = headers.get(&REQUEST_ID).filter(fit) {
        return id.clone();
    }
    let mut text = [0; 32];
    hex(&mut text, rand::rng().random());
    let id = value(&text);
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// Keeps a valid trace context, and starts a new one otherwise.
pub(super) fn continue_or_start(headers: &mut HeaderMap) {
    let valid = headers.get(&TRACEPARENT).is_some_and(|value| is_traceparent(value.as_bytes()));
    if valid {
        return;
    }
    headers.remove(&TRACESTATE);
    let mut random = rand::rng();
    let mut text = *b"00-................................-................-00";
    // All zeros would be invalid.
    hex(&mut text[3..35], random.random::<u128>().max(1));
    hex(&mut text[36..52], random.random::<u64>().max(1).into());
    headers.insert(TRACEPARENT, value(&text));
}

/// `version-trace-parent-flags`, in lower-case hexadecimal, the ids not zero. A later version may have more fields.
fn is_traceparent(text: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let not_zero = |part: &[u8]| part.iter().any(|b| *b != b'0');
    let Some((first, rest)) = text.split_at_checked(55) else { return false };
    let (version, trace, parent, flags) = (&first[..2], &first[3..35], &first[36..52], &first[53..]);
    let known = if version == b"00" { rest.is_empty() } else { version != b"ff" && matches!(rest, [] | [b'-', ..]) };
    known
        && [2, 35, 52].into_iter().all(|at| first[at] == b'-')
        && [version, trace, parent, flags].into_iter().all(hex)
        && not_zero(trace)
        && not_zero(parent)
}

/// Writes the last digits of a number.
fn hex(text: &mut [u8], mut number: u128) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

/// Hexadecimal digits and dashes are valid in a header.
fn value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static("0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true)]
    #[case("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true)]
    #[case("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", false)]
    #[case("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false)]
    #[case("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false)]
    #[case("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false)]
    #[case("", false)]
    fn a_trace_is_continued_or_started(#[case] text: &'static str, #[case] valid: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_static(text));
        headers.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        continue_or_start(&mut headers);
        assert_eq!(headers[TRACEPARENT] == text, valid);
        assert_eq!(headers.contains_key(TRACESTATE), valid);
        assert!(is_traceparent(headers[TRACEPARENT].as_bytes()));
    }

    #[test]
    fn a_request_id_is_kept_or_generated() {
        let mut headers = HeaderMap::new();
        let made = request_id(&mut headers);
        assert_eq!((made.len(), &headers[REQUEST_ID]), (32, &made));
        assert_eq!(request_id(&mut headers), made);
        headers.insert(REQUEST_ID, HeaderValue::from_static("with space"));
        assert_eq!(request_id(&mut headers).len(), 32);
    }
}
