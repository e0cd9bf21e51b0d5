//! Request ids and W3C trace context.

use http::{HeaderMap, HeaderValue};
use rand::Rng;

use crate::hop_by_hop::{REQUEST_ID, TRACEPARENT, TRACESTATE};

/// Maximum length of a client's request id.
const LONGEST_ID: usize = 128;

/// Id of a request.
#[derive(Debug)]
pub(super) enum RequestId {
    /// The client's.
    Client(HeaderValue),
    /// A generated one. It becomes a header when the request is sent: a queued request does not hold it in memory twice.
    Own([u8; 32]),
}

impl RequestId {
    /// Returns the client's id if it is fit for logs, and a new one otherwise.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let fit = |value: &&HeaderValue| {
            !value.is_empty() && value.len() <= LONGEST_ID && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        if let Some(id) = headers.get(&REQUEST_ID).filter(fit) {
            return Self::Client(id.clone());
        }
        let mut text = [0; 32];
        hex(&mut text, &rand::rng().random::<[u32; 4]>());
        Self::Own(text)
    }

    /// Returns the id as text.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Client(id) => id.to_str().unwrap_or_default(),
            Self::Own(text) => std::str::from_utf8(text).unwrap_or_default(),
        }
    }

    /// Adds a generated id to the headers.
    pub(super) fn add(&self, headers: &mut HeaderMap) {
        if let Self::Own(text) = self {
            headers.insert(REQUEST_ID, value(text));
        }
    }
}

/// Keeps a valid trace context, and starts a new one otherwise. `present` is whether there is any.
pub(super) fn continue_or_start(headers: &mut HeaderMap, present: bool) {
    if present {
        if headers.get(&TRACEPARENT).is_some_and(|value| is_traceparent(value.as_bytes())) {
            return;
        }
        headers.remove(&TRACESTATE);
    }
    let mut random = rand::rng();
    let mut text = *b"00-................................-................-00";
    let mut ids: [u32; 6] = random.random();
    for id in [0..4, 4..6] {
        if ids[id.clone()].iter().all(|part| *part == 0) {
            // It would be invalid.
            ids[id.start] = 1;
        }
    }
    hex(&mut text[3..35], &ids[..4]);
    hex(&mut text[36..52], &ids[4..]);
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

/// Writes numbers as eight digits each.
fn hex(text: &mut [u8], numbers: &[u32]) {
    for (digits, number) in text.chunks_exact_mut(8).zip(numbers) {
        digits.copy_from_slice(&eight_digits(*number));
    }
}

/// Returns the digits of a number, all of them computed at once: one per byte.
fn eight_digits(number: u32) -> [u8; 8] {
    let spread = u64::from(number);
    let spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    let spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    let nibbles = (spread | spread << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // One in each byte above nine, which is a letter.
    let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
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
        continue_or_start(&mut headers, true);
        assert_eq!(headers[TRACEPARENT] == text, valid);
        assert_eq!(headers.contains_key(TRACESTATE), valid);
        assert!(is_traceparent(headers[TRACEPARENT].as_bytes()));
    }

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 1, 0x9a, 0x0123_4567, 0x89ab_cdef, 0xfedc_ba98, u32::MAX] {
            assert_eq!(eight_digits(number), format!("{number:08x}").as_bytes());
        }
    }

    #[test]
    fn a_request_id_is_kept_or_generated() {
        let mut headers = HeaderMap::new();
        let made = RequestId::of(&headers);
        made.add(&mut headers);
        assert_eq!((made.as_str().len(), headers[REQUEST_ID].to_str().unwrap()), (32, made.as_str()));
        assert_eq!(RequestId::of(&headers).as_str(), made.as_str());
        headers.insert(REQUEST_ID, HeaderValue::from_static("with space"));
        let other = RequestId::of(&headers);
        other.add(&mut headers);
        assert_eq!((other.as_str().len(), headers[REQUEST_ID].to_str().unwrap()), (32, other.as_str()));
    }
}
