//! Validation of requests before anything else is done with them.

use http::{Method, Version, header, request::Parts};

use super::via;
use crate::{
    downstream::{Fault, Peer, REJECTED_HEADER},
    hop_by_hop::{Found, tokens},
    problem::{Kind, Problem},
};

/// Rejects requests that servers may read in different ways, and those that are not supported.
///
/// The head guard has validated heads of HTTP/1 byte by byte; what is checked here is what HTTP/2 leaves open.
pub(super) fn validate(parts: &Parts, peer: &Peer, found: &Found) -> Result<(), Problem> {
    if let Some(fault) = peer.state.fault()
        && parts.headers.contains_key(REJECTED_HEADER)
    {
        return Err(fault.into());
    }
    if parts.method == Method::CONNECT {
        return Err(Problem::new(Kind::NotSupported, "CONNECT is not supported"));
    }
    if found.via && via::loops(&parts.headers) {
        return Err(Problem::new(Kind::LoopDetected, "the request passed the activator too often, as Via records"));
    }
    // HTTP/1.0 has no expectations (RFC 9110, section 10.1.1).
    if found.expect
        && parts.version != Version::HTTP_10
        && !tokens(&parts.headers, &header::EXPECT).all(|one| one.eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(Problem::new(Kind::ExpectationFailed, "Expect has another expectation than 100-continue"));
    }
    if parts.version == Version::HTTP_2 {
        if parts.headers.len() > peer.headers {
            return Err(Fault::TooLarge("the request has too many headers").into());
        }
        if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
            return Err(Problem::new(Kind::BadRequest, "the request target is not a path"));
        }
        // The library rejects the other hop-by-hop headers, but not this one.
        if parts.headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
            return Err(Problem::new(Kind::BadRequest, "the request has more than one Content-Length"));
        }
    }
    Ok(())
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let kind = match fault {
            Fault::Malformed(_) => Kind::BadRequest,
            Fault::TooLarge(_) => Kind::HeaderTooLarge,
            Fault::TargetTooLong => Kind::UriTooLong,
            Fault::Slow => Kind::RequestTimeout,
        };
        Self::new(kind, fault.detail())
    }
}
