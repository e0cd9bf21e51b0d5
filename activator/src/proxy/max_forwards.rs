//! `Max-Forwards` of OPTIONS and TRACE: how many more hops a request may take (RFC 9110, section 7.6.2).

use http::{HeaderValue, Method, header, request::Parts};

use crate::{
    hop_by_hop::Found,
    problem::{Kind, Problem},
};

/// Counts this hop. Returns whether it is the last one, which responds itself.
///
/// # Errors
///
/// If the value is not a number.
pub(super) fn is_last(parts: &mut Parts, found: &Found) -> Result<bool, Problem> {
    if !found.max_forwards || !matches!(parts.method, Method::OPTIONS | Method::TRACE) {
        return Ok(false);
    }
    let number = |value: &HeaderValue| {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
        // A larger number is no limit.
        (!digits.is_empty()).then(|| digits.parse().unwrap_or(u32::MAX))
    };
    let left =
        parts.headers.get_all(header::MAX_FORWARDS).iter().map(number).try_fold(u32::MAX, |min, n| Some(n?.min(min)));
    match left {
        None => Err(Problem::new(Kind::BadRequest, "Max-Forwards is not a number")),
        Some(0) => Ok(true),
        Some(left) => {
            parts.headers.insert(header::MAX_FORWARDS, (left - 1).into());
            Ok(false)
        }
    }
}
