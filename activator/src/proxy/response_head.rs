//! The head of a pod's response, as far as it belongs to the connection to the pod.

use http::{HeaderMap, HeaderValue, Response, Version, header};
use hyper::ext::ReasonPhrase;

use crate::hop_by_hop::{list, tokens};

/// Removes version and reason phrase, which belong to one connection: the activator responds with its own.
///
/// A response of HTTP/1.0 ends when its connection ends. With the version of the activator it is sent in chunks, so that
/// a client can tell a response that broke off.
///
/// # Errors
///
/// If the response has a transfer coding that was not asked for: its body cannot be decoded.
pub(super) fn strip_hop<B>(response: &mut Response<B>) -> Result<(), &'static str> {
    let headers = response.headers();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        let mut codings = tokens(headers, &header::TRANSFER_ENCODING);
        if !codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked")) || codings.next().is_some() {
            return Err("the response has a transfer coding other than chunked");
        }
    }
    *response.version_mut() = Version::HTTP_11;
    response.extensions_mut().remove::<ReasonPhrase>();
    Ok(())
}

/// Returns the protocols of a 101 response, if they are among those that the client asked for.
pub(super) fn switched_protocol(response: &HeaderMap, asked: &HeaderValue) -> Option<HeaderValue> {
    let is_asked = |name: &[u8]| list(asked.as_bytes()).any(|asked| asked.eq_ignore_ascii_case(name));
    let protocols: Vec<&[u8]> = tokens(response, &header::UPGRADE).collect();
    let valid = !protocols.is_empty() && protocols.iter().all(|name| is_asked(name));
    valid.then(|| HeaderValue::from_bytes(&protocols.join(&b", "[..])).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[], true)]
    #[case(&["chunked"], true)]
    #[case(&["Chunked"], true)]
    #[case(&["gzip, chunked"], false)]
    #[case(&["gzip", "chunked"], false)]
    #[case(&["chunked, chunked"], false)]
    #[case(&["identity"], false)]
    #[case(&["chunked;q=1"], false)]
    #[case(&[""], false)]
    fn only_chunked_is_decoded(#[case] codings: &[&str], #[case] valid: bool) {
        let mut response = Response::builder().version(Version::HTTP_10);
        for coding in codings {
            response = response.header("transfer-encoding", *coding);
        }
        let mut response = response.body(()).unwrap();
        assert_eq!(strip_hop(&mut response).is_ok(), valid);
        assert!(!valid || response.version() == Version::HTTP_11);
    }

    #[rstest]
    #[case(&["websocket"], "websocket", Some("websocket"))]
    #[case(&["WebSocket"], "h2c, websocket", Some("WebSocket"))]
    #[case(&["b", "a"], "a,b", Some("b, a"))]
    #[case(&["b, c"], "a,b", None)]
    #[case(&["other"], "websocket", None)]
    #[case(&[], "websocket", None)]
    fn a_pod_switches_to_what_was_asked_for(
        #[case] told: &[&'static str],
        #[case] asked: &'static str,
        #[case] result: Option<&str>,
    ) {
        let headers = told.iter().map(|value| (header::UPGRADE, HeaderValue::from_static(value))).collect();
        let protocol = switched_protocol(&headers, &HeaderValue::from_static(asked));
        assert_eq!(protocol.as_ref().map(|p| p.to_str().unwrap()), result);
    }
}
