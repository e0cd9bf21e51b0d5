//! Hop-by-hop headers and Rouse's internal headers: detection and removal.

use http::{HeaderMap, HeaderName, header};

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Id of a request, set by the client or generated here.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Prefix of Rouse's internal headers, which are never a client's or a function's.
const INTERNAL: &str = "rouse-";

/// Hop-by-hop headers, whether or not `Connection` names them.
pub(crate) const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Headers that `Connection` cannot remove: message framing and addressing, and the origin of the request.
const END_TO_END: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    REQUEST_ID,
    TRACEPARENT,
    TRACESTATE,
];

/// What has to be removed from a head, found in one pass. Most heads have none of it.
#[derive(Default)]
pub(crate) struct Found {
    /// One bit for each of `HOP_BY_HOP`.
    hop_by_hop: u16,
    internal: bool,
    pub(crate) expect: bool,
    /// `TE` has the token `trailers`.
    pub(crate) trailers: bool,
}

impl Found {
    /// Whether there are no hop-by-hop headers.
    pub(crate) fn has_none(&self) -> bool {
        self.hop_by_hop == 0
    }

    pub(crate) fn has_transfer_encoding(&self) -> bool {
        self.hop_by_hop & (1 << 6) != 0
    }
}

/// Removes internal headers from trailers, and fields that are allowed in a head only.
pub(crate) fn clean_trailers(headers: &mut HeaderMap) {
    let found = scan(headers);
    strip(headers, &found);
    for name in &END_TO_END {
        headers.remove(name);
    }
}

pub(crate) fn scan(headers: &HeaderMap) -> Found {
    let mut found = Found::default();
    for (name, value) in headers {
        found.hop_by_hop |= match name.as_str() {
            "connection" => 1,
            "keep-alive" => 1 << 1,
            "proxy-connection" => 1 << 2,
            "proxy-authenticate" => 1 << 3,
            "proxy-authorization" => 1 << 4,
            "te" => {
                found.trailers |= value.to_str().is_ok_and(|te| list(te).any(|t| t.eq_ignore_ascii_case("trailers")));
                1 << 5
            }
            "transfer-encoding" => 1 << 6,
            "upgrade" => 1 << 7,
            "http2-settings" => 1 << 8,
            "expect" => {
                found.expect = true;
                0
            }
            other => {
                found.internal |= other.starts_with(INTERNAL);
                0
            }
        };
    }
    found
}

pub(crate) fn strip(headers: &mut HeaderMap, found: &Found) {
    if found.hop_by_hop & 1 != 0 {
        let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
            // The usual tokens are handled below.
            .filter(|token| !["keep-alive", "close", "upgrade"].iter().any(|usual| token.eq_ignore_ascii_case(usual)))
            .filter_map(|token| token.parse().ok())
            .filter(|name| !END_TO_END.contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    if found.hop_by_hop != 0 {
        for (bit, name) in HOP_BY_HOP.iter().enumerate() {
            if found.hop_by_hop & (1 << bit) != 0 {
                headers.remove(name);
            }
        }
    }
    if found.internal {
        let internal: Vec<HeaderName> =
            headers.keys().filter(|name| name.as_str().starts_with(INTERNAL)).cloned().collect();
        for name in internal {
            headers.remove(name);
        }
    }
}

pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).flat_map(list)
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}
