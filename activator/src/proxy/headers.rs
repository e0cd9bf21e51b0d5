//! What is taken from and added to the headers of a request and its answer.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use rouse_crds::function::Protocol;

use super::{Peer, trace};
use crate::route::said_tls;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers of this prefix are Rouse's own and never a client's or a function's.
const INTERNAL: &str = "rouse-";

/// Headers that speak of one connection only, whether or not `Connection` names them.
const HOP_BY_HOP: [HeaderName; 9] = [
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

/// Headers that `Connection` cannot take away: what frames and addresses a message, and what tells where it comes from.
const END_TO_END: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    trace::REQUEST_ID,
    trace::TRACEPARENT,
    trace::TRACESTATE,
];

/// What is to be taken from a head, as one look at it tells. Most have nothing of it.
#[derive(Default)]
struct Found {
    /// One bit for each of `HOP_BY_HOP`.
    hop_by_hop: u16,
    internal: bool,
    expect: bool,
    /// `TE` has the token `trailers`.
    trailers: bool,
}

/// Makes the head of a request what a function is to see. Tells whether the client wants to change to another protocol.
pub(super) fn toward_pod(parts: &mut Parts, peer: &Peer) -> bool {
    let found = look(&parts.headers);
    let upgrade = wanted_upgrade(parts, &found);
    strip(&mut parts.headers, &found);
    if found.trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if found.expect {
        // Answered here, by asking for the body.
        parts.headers.remove(header::EXPECT);
    }
    forwarded(parts, peer);
    trace::continue_or_start(&mut parts.headers);
    let upgrades = upgrade.is_some();
    if let Some(protocol) = upgrade {
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, protocol);
    }
    upgrades
}

/// Puts target, Host and version into the form of the pod's protocol.
pub(super) fn target<B>(request: &mut Request<B>, protocol: Protocol) {
    match protocol {
        Protocol::Http1 => {
            *request.version_mut() = Version::HTTP_11;
            let uri = request.uri();
            if uri.authority().is_none() && uri.path_and_query().is_some() {
                // Origin form already, as most are; then the host is in its header.
                return;
            }
            let host = uri.authority().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
            *request.uri_mut() = Uri::from(path_of(uri));
            if let (Some(host), false) = (host, request.headers().contains_key(header::HOST)) {
                request.headers_mut().insert(header::HOST, host);
            }
        }
        Protocol::H2c => {
            *request.version_mut() = Version::HTTP_2;
            let host = request.headers_mut().remove(header::HOST);
            let uri = request.uri();
            let named = || Authority::try_from(host?.as_bytes()).ok();
            let uri = match uri.authority().cloned().or_else(named) {
                Some(authority) => {
                    Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path_of(uri)).build()
                }
                None => return,
            };
            // The authority was accepted as a host before.
            if let Ok(uri) = uri {
                *request.uri_mut() = uri;
            }
        }
    }
}

fn path_of(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// Makes the head of an answer what a client is to see.
///
/// # Errors
///
/// If it can be read in two ways: then nobody knows where it ends.
pub(super) fn toward_client(headers: &mut HeaderMap) -> Result<(), &'static str> {
    let found = look(headers);
    let coded = found.hop_by_hop & (1 << 6) != 0;
    if coded && headers.contains_key(header::CONTENT_LENGTH) {
        return Err("the answer has both Transfer-Encoding and Content-Length");
    }
    strip(headers, &found);
    Ok(())
}

/// Takes from trailers what is Rouse's own, and what only a head may say.
pub(super) fn trailers(headers: &mut HeaderMap) {
    let found = look(headers);
    strip(headers, &found);
    for name in &END_TO_END {
        headers.remove(name);
    }
}

/// Whether a request asks, in a way that HTTP/1.1 allows, for another protocol on its connection.
fn wanted_upgrade(parts: &Parts, found: &Found) -> Option<HeaderValue> {
    if found.hop_by_hop == 0 || parts.version != Version::HTTP_11 {
        return None;
    }
    let protocol = parts.headers.get(header::UPGRADE)?;
    let asks = tokens(&parts.headers, &header::CONNECTION).any(|t| t.eq_ignore_ascii_case("upgrade"));
    // HTTP/2 is offered by prior knowledge; an upgrade to it may be ignored, and then the request is answered as it is.
    (asks && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| protocol.clone())
}

fn look(headers: &HeaderMap) -> Found {
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

fn strip(headers: &mut HeaderMap, found: &Found) {
    if found.hop_by_hop & 1 != 0 {
        let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
            // The usual ones need no look.
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

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).flat_map(list)
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

fn forwarded(parts: &mut Parts, peer: &Peer) {
    let headers = &mut parts.headers;
    // Both are known to be a host, with a port perhaps.
    let host = match parts.uri.authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => headers.get(header::HOST).cloned(),
    };
    let host = host.unwrap_or(HeaderValue::from_static(""));
    if peer.secure {
        // Known here better than by whoever calls.
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    }
    let https = said_tls(headers);
    if !https && !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    let proto: &[u8] = if https { b"https" } else { b"http" };
    let element = [b"for=", peer.quoted(), b";host=\"", host.as_bytes(), b"\";proto=", proto];
    let length = element.iter().map(|part| part.len()).sum();
    append(headers, &header::FORWARDED, &element, length);
    if headers.contains_key(X_FORWARDED_FOR) {
        append(headers, &X_FORWARDED_FOR, &[peer.text().as_bytes()], peer.text().len());
    } else {
        headers.insert(X_FORWARDED_FOR, peer.text().clone());
    }
    if !headers.contains_key(X_FORWARDED_HOST) {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// Adds an element of so many bytes to a header that is a list.
fn append(headers: &mut HeaderMap, name: &HeaderName, element: &[&[u8]], length: usize) {
    let former = || headers.get_all(name).iter().map(HeaderValue::as_bytes).filter(|value| !value.is_empty());
    let mut list = Vec::with_capacity(former().map(|value| value.len() + 2).sum::<usize>() + length);
    for value in former() {
        list.extend_from_slice(value);
        list.extend_from_slice(b", ");
    }
    element.iter().for_each(|part| list.extend_from_slice(part));
    // It is made of header values, so it is one.
    if let Ok(list) = HeaderValue::from_maybe_shared(Bytes::from(list)) {
        headers.insert(name, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::sync::Arc;

    fn parts(headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::get("http://a.example/x?y");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn cleaned(headers: &[(&'static str, &'static str)]) -> (Parts, bool) {
        let mut parts = parts(headers);
        let upgrades = toward_pod(&mut parts, &Peer::new("[::1]:80".parse().unwrap(), Arc::default(), 100));
        (parts, upgrades)
    }

    #[test]
    fn a_client_by_ipv6_is_quoted() {
        let (parts, _) = cleaned(&[]);
        assert_eq!(parts.headers["forwarded"], r#"for="[::1]";host="a.example";proto=http"#);
        assert_eq!(parts.headers["x-forwarded-for"], "::1");
        assert_eq!(parts.headers["x-forwarded-host"], "a.example");
    }

    #[rstest]
    #[case("https", "https")]
    #[case("HTTPS, http", "https")]
    #[case("http, https", "http")]
    fn the_client_spoke_with_the_first_proxy(#[case] said: &'static str, #[case] told: &str) {
        let (parts, _) = cleaned(&[("x-forwarded-proto", said)]);
        assert!(parts.headers["forwarded"].to_str().unwrap().ends_with(&format!(";proto={told}")));
        assert_eq!(parts.headers["x-forwarded-proto"], said);
    }

    #[test]
    fn lists_over_several_lines_become_one() {
        let (parts, _) =
            cleaned(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2"), ("x-forwarded-proto", "gopher")]);
        assert_eq!(parts.headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(parts.headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, ::1");
        assert!(parts.headers["forwarded"].to_str().unwrap().ends_with("proto=http"));
    }

    #[test]
    fn connection_takes_away_what_it_names_and_not_where_a_request_comes_from() {
        let named = "x-secret, HOST, Content-Length, x-forwarded-for, X-Request-Id, traceparent, close, bad token";
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let (parts, _) = cleaned(&[
            ("connection", named),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("host", "a.example"),
            ("content-length", "3"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-request-id", "abc"),
            ("traceparent", trace),
            ("rouse-a", "1"),
            ("rouse-b", "1"),
            ("expect", "100-continue"),
            ("proxy-authorization", "x"),
        ]);
        let mut left: Vec<_> = parts.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                "content-length",
                "forwarded",
                "host",
                "traceparent",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-request-id"
            ]
        );
        assert_eq!(
            (&parts.headers["x-forwarded-for"], &parts.headers["traceparent"]),
            (&HeaderValue::from_static("1.1.1.1, ::1"), &HeaderValue::from_static(trace))
        );
    }

    #[test]
    fn every_header_of_one_connection_is_found() {
        for name in &HOP_BY_HOP {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("x"));
            toward_client(&mut headers).unwrap();
            assert!(headers.is_empty(), "{name}");
        }
    }

    #[rstest]
    #[case(&[("connection", "upgrade"), ("upgrade", "websocket")], true)]
    #[case(&[("connection", "keep-alive, Upgrade"), ("upgrade", "x")], true)]
    #[case(&[("upgrade", "websocket")], false)]
    #[case(&[("connection", "upgrade")], false)]
    #[case(&[("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "x")], false)]
    fn only_a_wish_that_http_allows_is_passed_on(
        #[case] headers: &[(&'static str, &'static str)],
        #[case] wanted: bool,
    ) {
        let (parts, upgrades) = cleaned(headers);
        assert_eq!(
            (upgrades, parts.headers.contains_key("upgrade"), parts.headers.contains_key("connection")),
            (wanted, wanted, wanted)
        );
        assert!(!parts.headers.contains_key("http2-settings"));
    }

    #[test]
    fn the_target_takes_the_form_of_the_protocol() {
        let mut http1 = Request::from_parts(parts(&[]), ());
        target(&mut http1, Protocol::Http1);
        assert_eq!(
            (http1.uri().to_string().as_str(), http1.headers()["host"].to_str().unwrap()),
            ("/x?y", "a.example")
        );
        let mut h2c = Request::from_parts(parts(&[("host", "a.example")]), ());
        target(&mut h2c, Protocol::H2c);
        assert_eq!(
            (h2c.uri().to_string().as_str(), h2c.headers().contains_key("host")),
            ("http://a.example/x?y", false)
        );
    }
}
