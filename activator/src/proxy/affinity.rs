//! What keeps a caller at one revision while calls are split.

use http::{HeaderMap, HeaderValue, header};

use crate::admit::{Affinity, Gate, Lease, Policy, Target, TellApart};

/// The revision that a request by the shares is for. While calls are not split there is nothing to look at.
pub(super) fn target(gate: &Gate, policy: &Policy, headers: &HeaderMap) -> Target {
    let Some(by) = policy.affinity.as_ref().filter(|_| gate.is_split()) else { return Target::ANY };
    let affinity = match by {
        TellApart::Header(name) => {
            headers.get(name).map_or(Affinity::None, |value: &HeaderValue| Affinity::of(value.as_bytes()))
        }
        TellApart::Cookie(name) => {
            cookie(headers, name).map_or(Affinity::None, |value| Affinity::Revision(value.into()))
        }
    };
    Target::Shares { affinity }
}

/// Tells the caller by a cookie which revision has answered, if calls are split by one and it does not know already.
pub(super) fn keep(gate: &Gate, policy: &Policy, target: &Target, lease: &Lease, answer: &mut HeaderMap) {
    let (Some(TellApart::Cookie(name)), Target::Shares { affinity }) = (&policy.affinity, target) else { return };
    let known = matches!(affinity, Affinity::Revision(revision) if **revision == *lease.revision());
    if known || !gate.is_split() {
        return;
    }
    // The name of a revision and of a cookie are such as a header may have.
    if let Ok(cookie) = HeaderValue::try_from(format!("{name}={}; Path=/; HttpOnly; SameSite=Lax", lease.revision())) {
        answer.append(header::SET_COOKIE, cookie);
    }
}

/// The value of a cookie, if there is one that the name of a revision can be.
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
    #[case(&["rev=a"], Some("a"))]
    #[case(&["x=y; rev=a; rev=b"], Some("a"))]
    #[case(&["x=y", "rev=a"], Some("a"))]
    #[case(&["rev"], None)]
    #[case(&["xrev=a; Rev=b"], None)]
    #[case(&["rev=a=b"], Some("a=b"))]
    #[case(&["rev=\u{e9}"], None)]
    #[case(&[], None)]
    fn a_cookie_is_found(#[case] cookies: &[&str], #[case] expected: Option<&str>) {
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
