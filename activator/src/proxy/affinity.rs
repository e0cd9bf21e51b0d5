//! Session affinity: keeps a client at one revision while traffic is split.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};

use crate::{
    admit::{Affinity, AffinityKey, Breaker, Permit, Policy, Target},
    hop_by_hop::tokens,
};

/// Selects the target of a request: the revision of its tag, if it has one, otherwise by traffic percentage. Without a
/// traffic split there is nothing to look up.
pub(super) fn select_target(
    tagged: Option<Arc<str>>,
    breaker: &Breaker,
    policy: &Policy,
    headers: &HeaderMap,
) -> Target {
    if let Some(revision) = tagged {
        return Target::Revision(revision);
    }
    let Some(by) = policy.affinity.as_ref().filter(|_| breaker.is_split()) else { return Target::ANY };
    let affinity = match by {
        AffinityKey::Header(name) => {
            headers.get(name).map_or(Affinity::None, |value: &HeaderValue| Affinity::of(value.as_bytes()))
        }
        AffinityKey::Cookie(name) => {
            cookie(headers, name).map_or(Affinity::None, |value| Affinity::Revision(value.into()))
        }
    };
    Target::Traffic { affinity }
}

/// Sets the affinity cookie on a response, if affinity is by cookie and the client does not have it already. A client that
/// uses TLS never sends it without.
pub(super) fn set_cookie(policy: &Policy, target: &Target, permit: &Permit, https: bool, response: &mut HeaderMap) {
    let (Some(AffinityKey::Cookie(name)), Target::Traffic { affinity }) = (&policy.affinity, target) else { return };
    let known = matches!(affinity, Affinity::Revision(revision) if **revision == *permit.revision());
    if known || !permit.breaker().is_split() {
        return;
    }
    // Names of revisions and cookies are valid header values.
    let secure = if https { "; Secure" } else { "" };
    let cookie = format!("{name}={}; Path=/; HttpOnly; SameSite=Lax{secure}", permit.revision());
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.append(header::SET_COOKIE, cookie);
        not_stored(response);
    }
}

/// Keeps shared caches from storing a response that is one client's: from a cache, the cookie would pin all clients to one
/// revision (RFC 9111, section 7.3).
fn not_stored(response: &mut HeaderMap) {
    let not_shared = |directive: &[u8]| {
        // A private field list does not keep the rest from being stored.
        [&b"no-store"[..], b"private"].iter().any(|known| directive.eq_ignore_ascii_case(known))
    };
    if !tokens(response, &header::CACHE_CONTROL).any(not_shared) {
        response.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// Returns the value of a cookie, if it can be the name of a revision.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let pairs = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    pairs
        .flat_map(|pairs| pairs.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, value)| *key == name && value.len() <= 63)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[], &["no-store"])]
    #[case(&["public, max-age=60"], &["no-store"])]
    #[case(&["max-age=60", "No-Store"], &["max-age=60", "No-Store"])]
    #[case(&["max-age=60, private"], &["max-age=60, private"])]
    #[case(&["private=\"x-user\""], &["no-store"])]
    fn a_response_with_the_cookie_is_not_stored(#[case] said: &[&'static str], #[case] expected: &[&str]) {
        let mut headers = HeaderMap::new();
        for value in said {
            headers.append(header::CACHE_CONTROL, HeaderValue::from_static(value));
        }
        not_stored(&mut headers);
        assert_eq!(headers.get_all(header::CACHE_CONTROL).iter().collect::<Vec<_>>(), expected);
    }

    #[rstest]
    #[case(&["rev=a"], Some("a"))]
    #[case(&["x=y; rev=a; rev=b"], Some("a"))]
    #[case(&["x=y", "rev=a"], Some("a"))]
    #[case(&["rev"], None)]
    #[case(&["xrev=a; Rev=b"], None)]
    #[case(&["rev=a=b"], Some("a=b"))]
    #[case(&["rev=\u{e9}"], None)]
    #[case(&[], None)]
    fn cookies_are_parsed(#[case] cookies: &[&str], #[case] expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        for value in cookies {
            headers.append(header::COOKIE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        assert_eq!(cookie(&headers, "rev"), expected);
        let long = format!("rev={}", "a".repeat(64));
        headers.insert(header::COOKIE, HeaderValue::try_from(long).unwrap());
        assert_eq!(cookie(&headers, "rev"), None);
    }
}
