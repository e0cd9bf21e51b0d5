//! Headers that do not pass: hop-by-hop headers, Rouse's internal headers, statements about the origin of a request, and
//! names that a server may read as one of these.

use http::{HeaderMap, HeaderName, header};

pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Id of a request, set by a trusted proxy or generated here.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Prefix of Rouse's internal headers, which are never a client's or a function's.
const INTERNAL: &str = "rouse-";
/// Prefix of statements about the origin of a request. Beside the usual three there are those that authenticate, such as
/// `X-Forwarded-Client-Cert` and `X-Forwarded-User`.
const FORWARDED: &str = "x-forwarded-";

/// Other statements about the origin of a request. Frameworks take the client's address from the last four.
const ORIGIN: [HeaderName; 6] = [
    header::FORWARDED,
    REQUEST_ID,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("client-ip"),
    HeaderName::from_static("x-client-ip"),
];

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

/// Headers that `Connection` cannot remove, beside those about the origin: message framing, addressing and tracing.
const END_TO_END: [HeaderName; 7] =
    [header::HOST, header::CONTENT_LENGTH, header::EXPECT, header::MAX_FORWARDS, header::VIA, TRACEPARENT, TRACESTATE];

/// What has to be removed from a head or rewritten in it, found in one pass. Most heads have none of it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Found {
    /// One bit for each of `HOP_BY_HOP`.
    hop_by_hop: u16,
    internal: bool,
    /// A name has other characters than letters, digits and hyphens.
    odd_names: bool,
    /// A statement about the origin of the request.
    origin: bool,
    pub(crate) expect: bool,
    pub(crate) max_forwards: bool,
    pub(crate) via: bool,
    /// A trace context.
    pub(crate) trace: bool,
    /// `TE` has the token `trailers`.
    pub(crate) trailers: bool,
    /// Number of `Cookie` fields.
    pub(crate) cookies: usize,
}

impl Found {
    pub(crate) fn has_transfer_encoding(&self) -> bool {
        self.hop_by_hop & (1 << 6) != 0
    }

    /// Whether there is a statement about the origin of the request.
    pub(crate) fn has_origin(&self) -> bool {
        self.origin
    }

    pub(crate) fn has_upgrade(&self) -> bool {
        self.hop_by_hop & (1 << 7) != 0
    }
}

/// Removes from trailers what does not pass in a head either, and fields that are allowed in a head only.
pub(crate) fn clean_trailers(headers: &mut HeaderMap) {
    let mut found = scan(headers);
    strip(headers, &found);
    strip_origin(headers, &mut found);
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
                // With a weight it is still accepted.
                let trailers = |coding: &[u8]| {
                    let name = coding.split(|b| *b == b';').next().unwrap_or_default();
                    name.trim_ascii().eq_ignore_ascii_case(b"trailers")
                };
                found.trailers |= list(value.as_bytes()).any(trailers);
                1 << 5
            }
            "transfer-encoding" => 1 << 6,
            "upgrade" => 1 << 7,
            "http2-settings" => 1 << 8,
            other => {
                match other {
                    "expect" => found.expect = true,
                    "via" => found.via = true,
                    "traceparent" | "tracestate" => found.trace = true,
                    "cookie" => found.cookies += 1,
                    "max-forwards" => found.max_forwards = true,
                    "forwarded" | "x-request-id" | "x-real-ip" | "true-client-ip" | "client-ip" | "x-client-ip" => {
                        found.origin = true;
                    }
                    other => {
                        found.internal |= other.starts_with(INTERNAL);
                        found.origin |= other.starts_with(FORWARDED);
                        found.odd_names |= is_odd(other);
                    }
                }
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
            .filter(|token| {
                let usual: [&[u8]; 4] = [b"keep-alive", b"close", b"upgrade", b"te"];
                !usual.iter().any(|usual| token.eq_ignore_ascii_case(usual))
            })
            .filter_map(|token| HeaderName::from_bytes(token).ok())
            .filter(|name| !END_TO_END.contains(name) && !is_of_origin(name.as_str()))
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
    if found.internal || found.odd_names {
        remove(headers, |name| name.starts_with(INTERNAL) || is_twin(name));
    }
}

/// Removes statements about the origin of a request, because they are those of a client.
pub(crate) fn strip_origin(headers: &mut HeaderMap, found: &mut Found) {
    if std::mem::take(&mut found.origin) {
        remove(headers, is_of_origin);
    }
}

fn remove(headers: &mut HeaderMap, unwanted: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| unwanted(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

fn is_of_origin(name: &str) -> bool {
    name.starts_with(FORWARDED) || ORIGIN.iter().any(|origin| origin == name)
}

fn is_odd(name: &str) -> bool {
    // Without an early exit, so that many bytes are checked at once.
    name.bytes().fold(false, |odd, b| odd | !(b.is_ascii_alphanumeric() | (b == b'-')))
}

/// Whether servers may read this name as one that is removed or set here. CGI, WSGI, Rack and PHP have one variable for
/// names that differ in punctuation only (RFC 9110, section 17.10): `Rouse_Mirror` is `HTTP_ROUSE_MIRROR`.
fn is_twin(name: &str) -> bool {
    if !is_odd(name) {
        return false;
    }
    let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let reserved = |names: &[HeaderName]| names.iter().any(|reserved| *reserved == *plain);
    plain.starts_with(INTERNAL) || is_of_origin(&plain) || reserved(&HOP_BY_HOP) || reserved(&END_TO_END)
}

/// Returns the members of a list header, over all its fields (RFC 9110, section 5.6.1).
pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).into_iter().flat_map(|value| list(value.as_bytes()))
}

/// Returns the members of one field of a list header.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("rouse_mirror", true)]
    #[case("rouse-a_b", true)]
    #[case("x_forwarded.user", true)]
    #[case("max!forwards", true)]
    #[case("content_length", true)]
    #[case("rouse", false)]
    #[case("rousé", false)]
    #[case("rouse-mirror", false)]
    #[case("my_header", false)]
    #[case("_rouse_mirror", false)]
    fn names_that_servers_may_confuse(#[case] name: &str, #[case] twin: bool) {
        assert_eq!(is_twin(name), twin);
    }

    /// `scan` matches names that the arrays have too.
    #[test]
    fn every_reserved_name_is_found() {
        for name in HOP_BY_HOP.iter().chain(&ORIGIN) {
            let headers = HeaderMap::from_iter([(name.clone(), http::HeaderValue::from_static("x"))]);
            let found = scan(&headers);
            assert!(found.hop_by_hop != 0 || found.origin, "{name}");
            let mut trailers = headers;
            clean_trailers(&mut trailers);
            assert!(trailers.is_empty(), "{name}");
        }
    }
}
