//! Headers that are removed from and added to a request and its response.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use rouse_crds::function::Protocol;

use super::{list_header::append, trace, via};
use crate::{
    downstream::Peer,
    hop_by_hop::{Found, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, scan, strip, tokens},
    route::came_by_tls,
};

/// What the response to a request depends on, and the head that goes to the pod does not tell.
#[derive(Debug)]
pub(super) struct Asked {
    /// Protocols that the client offers to upgrade to.
    pub(super) upgrade: Option<HeaderValue>,
    /// Whether the client used TLS, to the activator or to a trusted proxy.
    pub(super) https: bool,
}

/// Number of headers that a request has more toward its pod.
const ADDED: usize = 7;

/// Rewrites the head of a request for a function. Statements of an untrusted peer about its origin have been removed.
pub(super) fn toward_pod<B>(request: &mut Request<B>, peer: &Peer, found: &Found) -> Asked {
    let upgrade = offered_upgrade(request, found);
    let headers = request.headers_mut();
    // At once, or the map would grow several times. It fails for a map that is too large, as each insertion would.
    drop(headers.try_reserve(ADDED));
    strip(headers, found);
    if found.expect {
        // The activator itself asks for the body.
        headers.remove(header::EXPECT);
    }
    if found.cookies > 1 {
        join_cookies(headers);
    }
    let https = forwarded(request, peer, found);
    via::add(request, found);
    let headers = request.headers_mut();
    trace::continue_or_start(headers, found.trace);
    let connection = match (upgrade.is_some(), found.trailers) {
        (true, true) => Some("upgrade, TE"),
        (true, false) => Some("upgrade"),
        (false, true) => Some("TE"),
        (false, false) => None,
    };
    if let Some(connection) = connection {
        headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
    }
    if found.trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocols) = &upgrade {
        headers.insert(header::UPGRADE, protocols.clone());
    }
    Asked { upgrade, https }
}

/// Makes one `Cookie` field of several: HTTP/2 may split it, HTTP/1.1 may not (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let fields: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // It is made of valid header values.
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(fields.join(&b"; "[..]))) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Rewrites target, Host and version into the form of the pod's protocol.
pub(super) fn target<B>(request: &mut Request<B>, protocol: Protocol) {
    match protocol {
        Protocol::Http1 => {
            *request.version_mut() = Version::HTTP_11;
            let uri = request.uri();
            if uri.authority().is_none() && uri.path_and_query().is_some() {
                // Origin form already, as most are; the host is in its header.
                return;
            }
            let host = uri.authority().and_then(|authority| HeaderValue::try_from(authority.as_str()).ok());
            *request.uri_mut() = Uri::from(path_of(uri));
            if let Some(host) = host {
                // The host of the target is the one (RFC 9112, section 3.2.2).
                request.headers_mut().insert(header::HOST, host);
            }
        }
        Protocol::H2c => {
            *request.version_mut() = Version::HTTP_2;
            // HTTP/2 has no connection-specific fields (RFC 9113, section 8.2.2). TE stays without its connection option.
            if request.headers_mut().remove(header::CONNECTION).is_some() {
                request.headers_mut().remove(header::UPGRADE);
            }
            let host = request.headers_mut().remove(header::HOST);
            let uri = request.uri();
            let named = || Authority::try_from(host?.as_bytes()).ok();
            let uri = match uri.authority().cloned().or_else(named) {
                Some(authority) => {
                    Uri::builder().scheme(Scheme::HTTP).authority(authority).path_and_query(path_of(uri)).build()
                }
                None => return,
            };
            // The authority was validated as a host before.
            if let Ok(uri) = uri {
                *request.uri_mut() = uri;
            }
        }
    }
}

fn path_of(uri: &Uri) -> PathAndQuery {
    uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// Rewrites the head of a response for a client.
///
/// # Errors
///
/// If the framing is ambiguous: the end of the body is not certain.
pub(super) fn toward_client(headers: &mut HeaderMap) -> Result<(), &'static str> {
    let found = scan(headers);
    if found.has_transfer_encoding() && headers.contains_key(header::CONTENT_LENGTH) {
        return Err("the response has both Transfer-Encoding and Content-Length");
    }
    strip(headers, &found);
    Ok(())
}

/// Returns the protocols that a request offers to upgrade to, if HTTP/1.1 allows it.
fn offered_upgrade<B>(request: &Request<B>, found: &Found) -> Option<HeaderValue> {
    if !found.has_upgrade() || request.version() != Version::HTTP_11 {
        return None;
    }
    let headers = request.headers();
    if !tokens(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade")) {
        return None;
    }
    // HTTP/2 works by prior knowledge. In a tunnel, requests would pass the routes unseen; an upgrade may be ignored, and
    // the request is served as it is.
    let is_http = |protocol: &&[u8]| {
        let name = protocol.split(|b| *b == b'/').next().unwrap_or_default();
        [&b"h2c"[..], b"h2", b"http"].iter().any(|http| name.eq_ignore_ascii_case(http))
    };
    let protocols: Vec<&[u8]> = tokens(headers, &header::UPGRADE).filter(|one| !is_http(one)).collect();
    if protocols.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&protocols.join(&b", "[..])).ok()
}

/// Adds this hop to the statements about the origin of a request. Returns whether the client used TLS.
fn forwarded<B>(request: &mut Request<B>, peer: &Peer, found: &Found) -> bool {
    // Both were validated as a host with an optional port.
    let host = match request.uri().authority() {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => request.headers().get(header::HOST).cloned(),
    };
    let headers = request.headers_mut();
    let host = host.unwrap_or(HeaderValue::from_static(""));
    // Most requests have no such statement, and a look at each header costs more than all the rest.
    let first = !found.has_origin();
    if first || !headers.contains_key(X_FORWARDED_PROTO) {
        let scheme = if peer.secure { "https" } else { "http" };
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    let https = if first { peer.secure } else { came_by_tls(headers) };
    let proto: &[u8] = if https { b"https" } else { b"http" };
    let element = [b"for=", peer.quoted(), b";host=\"", host.as_bytes(), b"\";proto=", proto];
    let length = element.iter().map(|part| part.len()).sum();
    append(headers, &header::FORWARDED, &element, length, first);
    if !first && headers.contains_key(X_FORWARDED_FOR) {
        append(headers, &X_FORWARDED_FOR, &[peer.ip().as_bytes()], peer.ip().len(), false);
    } else {
        headers.insert(X_FORWARDED_FOR, peer.ip().clone());
    }
    // The host that was routed, whatever a proxy says: frameworks build links of it.
    headers.insert(X_FORWARDED_HOST, host);
    https
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop_by_hop::HOP_BY_HOP;
    use http::{HeaderName, request::Parts};
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
        let mut request = Request::from_parts(parts(headers), ());
        let found = scan(request.headers());
        let peer = Peer::new("[::1]:80".parse().unwrap(), Arc::default(), 100);
        let asked = toward_pod(&mut request, &peer, &found);
        (request.into_parts().0, asked.upgrade.is_some())
    }

    #[test]
    fn an_ipv6_client_is_quoted() {
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
    fn list_headers_are_merged() {
        let (parts, _) =
            cleaned(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2"), ("x-forwarded-proto", "gopher")]);
        assert_eq!(parts.headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(parts.headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, ::1");
        assert!(parts.headers["forwarded"].to_str().unwrap().ends_with("proto=http"));
    }

    #[test]
    fn connection_removes_named_headers_but_no_forwarding_headers() {
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
                "via",
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
    fn every_hop_by_hop_header_is_removed() {
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
    fn only_a_valid_upgrade_is_passed_on(#[case] headers: &[(&'static str, &'static str)], #[case] wanted: bool) {
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
