//! Requests that are refused before anything else is done with them.

use http::{Method, Version, header, request::Parts};

use crate::{
    downstream::{Fault, Peer, REFUSED},
    problem::{Kind, Problem},
};

/// Refuses what different servers would read in different ways, and what this is not for.
///
/// Heads of HTTP/1 have been read by the guard of the connection, byte by byte; what is asked here is what HTTP/2 leaves open.
pub(super) fn inspect(parts: &Parts, peer: &Peer) -> Result<(), Problem> {
    if let Some(fault) = peer.heads.fault()
        && parts.headers.contains_key(REFUSED)
    {
        return Err(fault.into());
    }
    if parts.method == Method::CONNECT {
        return Err(Problem::new(Kind::NotSupported, "CONNECT is not supported"));
    }
    if parts.version == Version::HTTP_2 {
        // One is the id that every request has by now.
        if parts.headers.len() > peer.headers + 1 {
            return Err(Fault::TooLarge("the request has more headers than are taken here").into());
        }
        if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
            return Err(Problem::new(Kind::BadRequest, "the path is not a path"));
        }
        // The library refuses the other headers that speak of one connection, but lets this one through.
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
            Fault::TooLarge(_) => Kind::HeadTooLarge,
            Fault::TargetTooLong => Kind::TargetTooLong,
            Fault::Slow => Kind::HeadTimeout,
        };
        Self::new(kind, fault.detail())
    }
}
