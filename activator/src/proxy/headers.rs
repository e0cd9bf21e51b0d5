//! What is taken from and added to the headers of a request and its answer.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Uri, Version, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use rouse_crds::function::Protocol;

use super::trace;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers of this prefix are Rouse's own and never a client's or a function's.
const INTERNAL: &str = "rouse-";

/// Headers that speak of one connection only, whether or not `Connection` names them.
const HOP_BY_HOP: [HeaderName; 8] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Makes the head of a request what a function is to see. Tells whether the client wants to change to another protocol.
pub(super) fn toward_pod(parts: &mut Parts, client: IpAddr, request_id: &HeaderValue) -> bool {
    let upgrade = wanted_upgrade(parts);
    let trailers = tokens(&parts.headers, &header::TE).any(|t| t.eq_ignore_ascii_case("trailers"));
    strip(&mut parts.headers);
    if trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // Answered here, by asking for the body.
    parts.headers.remove(header::EXPECT);
    forwarded(parts, client);
    parts.headers.insert(trace::REQUEST_ID, request_id.clone());
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
pub(super) fn toward_client(headers: &mut HeaderMap) {
    strip(headers);
}

/// Whether a request asks, in a way that HTTP/1.1 allows, for another protocol on its connection.
fn wanted_upgrade(parts: &Parts) -> Option<HeaderValue> {
    let asks = parts.version == Version::HTTP_11
        && tokens(&parts.headers, &header::CONNECTION).any(|t| t.eq_ignore_ascii_case("upgrade"));
    let protocol = parts.headers.get(header::UPGRADE).filter(|_| asks)?;
    // HTTP/2 is offered by prior knowledge; an upgrade to it may be ignored, and then the request is answered as it is.
    (!protocol.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| protocol.clone())
}

fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        // What frames and addresses a message is not for `Connection` to take away.
        let kept = [header::HOST, header::CONTENT_LENGTH];
        let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
            .filter_map(|t| t.parse().ok())
            .filter(|name| !kept.contains(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    let internal: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(INTERNAL)).cloned().collect();
    for name in internal {
        headers.remove(name);
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn forwarded(parts: &mut Parts, client: IpAddr) {
    let client = client.to_canonical();
    let host = parts.uri.authority().map(Authority::as_str).or_else(|| parts.headers.get(header::HOST)?.to_str().ok());
    let host = host.unwrap_or_default().to_owned();
    let headers = &mut parts.headers;
    let proto = headers
        .get(X_FORWARDED_PROTO)
        .and_then(|p| p.to_str().ok())
        .filter(|p| matches!(*p, "http" | "https"))
        .unwrap_or("http");
    let quoted = match client {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    };
    let element = format!("for={quoted};host=\"{host}\";proto={proto}");
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Ok(host) = HeaderValue::try_from(host)
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    append(headers, &header::FORWARDED, &element);
    append(headers, &X_FORWARDED_FOR, &client.to_string());
}

/// Adds an element to a header that is a list.
fn append(headers: &mut HeaderMap, name: &HeaderName, element: &str) {
    let former: Vec<&[u8]> =
        headers.get_all(name).iter().map(HeaderValue::as_bytes).filter(|v| !v.is_empty()).collect();
    let mut list = former.join(b", ".as_slice());
    if !list.is_empty() {
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(element.as_bytes());
    if let Ok(list) = HeaderValue::from_bytes(&list) {
        headers.insert(name, list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use rstest::rstest;

    fn parts(headers: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::get("http://a.example/x?y");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn cleaned(headers: &[(&'static str, &'static str)]) -> (Parts, bool) {
        let mut parts = parts(headers);
        let upgrades = toward_pod(&mut parts, "::1".parse().unwrap(), &HeaderValue::from_static("id"));
        (parts, upgrades)
    }

    #[test]
    fn a_client_by_ipv6_is_quoted() {
        let (parts, _) = cleaned(&[]);
        assert_eq!(parts.headers["forwarded"], r#"for="[::1]";host="a.example";proto=http"#);
        assert_eq!(parts.headers["x-forwarded-for"], "::1");
        assert_eq!(parts.headers["x-forwarded-host"], "a.example");
        assert_eq!(parts.headers["x-request-id"], "id");
    }

    #[test]
    fn lists_over_several_lines_become_one() {
        let (parts, _) =
            cleaned(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2"), ("x-forwarded-proto", "gopher")]);
        assert_eq!(parts.headers.get_all("x-forwarded-for").iter().count(), 1);
        assert_eq!(parts.headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, ::1");
        assert!(parts.headers["forwarded"].to_str().unwrap().ends_with("proto=http"));
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
