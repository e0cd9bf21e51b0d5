//! Redirect to HTTPS.

use http::{HeaderMap, HeaderValue, request::Parts};

use super::Host;

/// Returns the `https://` location of a public request without TLS; `None` if the client used TLS to the ingress, as
/// `X-Forwarded-Proto` reports, or the request names no host. The port is the default one. Statements of untrusted peers
/// have been removed from the headers.
#[must_use]
pub fn to_https(parts: &Parts) -> Option<HeaderValue> {
    if came_by_tls(&parts.headers) {
        return None;
    }
    let host = Host::of(parts).ok()?;
    // The target of OPTIONS may be no path.
    let target = parts.uri.path_and_query().map(http::uri::PathAndQuery::as_str).filter(|t| t.starts_with('/'));
    HeaderValue::try_from(format!("https://{}{}", host.as_str(), target.unwrap_or("/"))).ok()
}

/// Whether `X-Forwarded-Proto` reports that the client used TLS. Several proxies append to it; the first one spoke with
/// the client.
#[must_use]
pub fn came_by_tls(headers: &HeaderMap) -> bool {
    let first = headers.get("x-forwarded-proto").and_then(|proto| proto.as_bytes().split(|byte| *byte == b',').next());
    first.is_some_and(|proto| proto.trim_ascii().eq_ignore_ascii_case(b"https"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use rstest::rstest;

    #[rstest]
    #[case("/x?y=1", "A.example:8080", None, Some("https://a.example/x?y=1"))]
    #[case("http://a.example:80/x", "a.example", Some("http"), Some("https://a.example/x"))]
    #[case("//b.example/x", "a.example", None, Some("https://a.example//b.example/x"))]
    #[case("*", "a.example", None, Some("https://a.example/"))]
    #[case("/x", "a.example", Some("https"), None)]
    #[case("/x", "a.example", Some("HTTPS , http"), None)]
    #[case("/x", "a.example", Some("http, https"), Some("https://a.example/x"))]
    #[case("/x", "a b", None, None)]
    fn the_redirect_location(
        #[case] target: &str,
        #[case] host: &str,
        #[case] proto: Option<&str>,
        #[case] location: Option<&str>,
    ) {
        let mut request = Request::builder().method("OPTIONS").uri(target).header("host", host);
        if let Some(proto) = proto {
            request = request.header("x-forwarded-proto", proto);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(to_https(&parts).as_ref().map(|l| l.to_str().unwrap()), location);
    }
}
