//! `Via`: names this hop, and detects requests that loop (RFC 9110, section 7.6.3).

use http::{HeaderMap, HeaderValue, Request, Version, header};

use super::list_header::append;
use crate::hop_by_hop::{Found, tokens};

/// Name of every activator in `Via`. A pseudonym: host names of the cluster are nobody's business.
const PSEUDONYM: &[u8] = b"rouse";

/// Number of times that a request may have passed an activator. Functions that are proxies pass on `Via` and may call
/// each other, so one time is no loop. AWS Lambda too ends a recursion after 16 invocations.
const MAX_PASSES: usize = 16;

/// Adds this hop, with the protocol version in which it received the request.
pub(super) fn add<B>(request: &mut Request<B>, found: &Found) {
    let hop = match request.version() {
        Version::HTTP_2 => "2 rouse",
        Version::HTTP_10 => "1.0 rouse",
        _ => "1.1 rouse",
    };
    if found.via {
        append(request.headers_mut(), &header::VIA, &[hop.as_bytes()], hop.len(), false);
    } else {
        request.headers_mut().insert(header::VIA, HeaderValue::from_static(hop));
    }
}

/// Whether a request has passed activators so often that it loops.
pub(super) fn loops(headers: &HeaderMap) -> bool {
    let by_us = |hop: &[u8]| {
        let mut words = hop.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        // The protocol, and who received it.
        words.nth(1).is_some_and(|name| name.eq_ignore_ascii_case(PSEUDONYM))
    };
    tokens(headers, &header::VIA).filter(|hop| by_us(hop)).count() >= MAX_PASSES
}
