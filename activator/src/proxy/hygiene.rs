//! Requests that are refused before anything else is done with them.

use http::{Method, Version, header, request::Parts};

use super::Peer;
use crate::problem::{Kind, Problem};

/// Refuses what different servers would read in different ways, and what this is not for.
pub(super) fn inspect(parts: &Parts, peer: &Peer) -> Result<(), Problem> {
    if parts.method == Method::CONNECT {
        return Err(Problem::new(Kind::NotSupported, "CONNECT is not supported"));
    }
    // What the server has taken out of the head already, the guard of the connection has seen.
    if let Some(fault) = peer.heads.fault() {
        return Err(Problem::new(Kind::BadRequest, fault));
    }
    if parts.version <= Version::HTTP_11 {
        let lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter().count();
        let coded = parts.headers.contains_key(header::TRANSFER_ENCODING);
        if coded && lengths > 0 {
            return Err(Problem::new(Kind::BadRequest, "the request has both Transfer-Encoding and Content-Length"));
        }
        if lengths > 1 {
            return Err(Problem::new(Kind::BadRequest, "the request has more than one Content-Length"));
        }
    }
    Ok(())
}
