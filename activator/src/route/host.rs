//! Host of a request, in the canonical form in which hosts are compared.

use std::{borrow::Cow, net::Ipv6Addr};

use http::{header, request::Parts, uri::Authority};

/// A canonical host: lower case, without port and trailing dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host<'a>(Cow<'a, str>);

/// Why the host of a request is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// There is none.
    #[error("the request names no host")]
    Missing,
    /// There are several, or two that differ.
    #[error("the request names more than one host")]
    Several,
    /// It is not a host.
    #[error("the host is not a host name with an optional port")]
    Malformed,
}

/// Maximum length of a DNS name; an address is shorter.
const LONGEST: usize = 253;

impl<'a> Host<'a> {
    /// Returns the host of a request: that of its target if it has one (absolute-form, `:authority`), otherwise its
    /// Host header. If both are there, they must agree.
    ///
    /// # Errors
    ///
    /// If there is none, there are several, or it is malformed.
    pub fn of(parts: &'a Parts) -> Result<Self, BadHost> {
        let mut headers = parts.headers.get_all(header::HOST).iter();
        let named = headers.next();
        if headers.next().is_some() {
            return Err(BadHost::Several);
        }
        let named = named.map(|value| value.to_str().map_err(|_| BadHost::Malformed)).transpose()?;
        match (parts.uri.authority().map(Authority::as_str), named) {
            (None, None) => Err(BadHost::Missing),
            (Some(one), None) | (None, Some(one)) => Self::normalise(one),
            (Some(target), Some(named)) => {
                if !target.eq_ignore_ascii_case(named) && Self::normalise(target)? != Self::normalise(named)? {
                    return Err(BadHost::Several);
                }
                Self::normalise(target)
            }
        }
    }

    /// Returns the canonical form of a host. An IPv6 address keeps its brackets.
    ///
    /// # Errors
    ///
    /// If it is empty, too long, has user information, empty labels or characters that no host has.
    pub fn normalise(text: &'a str) -> Result<Self, BadHost> {
        let name = match text.strip_prefix('[') {
            // An IPv6 address: no route has one, but it is well-formed.
            Some(rest) => {
                let (inside, after) = rest.split_once(']').ok_or(BadHost::Malformed)?;
                port(after)?;
                // Only an address: `[a.b]` must not be taken for the name `a.b`, so the brackets stay, too.
                inside.parse::<Ipv6Addr>().map_err(|_| BadHost::Malformed)?;
                &text[..inside.len() + 2]
            }
            None => {
                let (name, after) = text.split_at(text.find(':').unwrap_or(text.len()));
                port(after)?;
                let name = name.strip_suffix('.').unwrap_or(name);
                // Without an early exit, so that many bytes are checked at once.
                let valid = name.bytes().fold(true, |valid, b| {
                    valid & (b.is_ascii_alphanumeric() | (b == b'-') | (b == b'_') | (b == b'.'))
                });
                let bytes = name.as_bytes();
                let dots = |(a, b): (&u8, &u8)| (*a == b'.') & (*b == b'.');
                let empty_label = bytes.iter().zip(bytes.iter().skip(1)).fold(false, |found, pair| found | dots(pair));
                if !valid || empty_label || name.starts_with('.') || name.ends_with('.') {
                    return Err(BadHost::Malformed);
                }
                name
            }
        };
        if name.is_empty() || name.len() > LONGEST {
            return Err(BadHost::Malformed);
        }
        let upper = name.bytes().fold(false, |upper, b| upper | b.is_ascii_uppercase());
        Ok(Self(if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) }))
    }

    /// Returns the host as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks what follows a name: nothing, or a colon and a port that may be empty.
fn port(text: &str) -> Result<(), BadHost> {
    let Some(digits) = text.strip_prefix(':') else {
        return if text.is_empty() { Ok(()) } else { Err(BadHost::Malformed) };
    };
    let good = digits.is_empty() || (digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok());
    if good { Ok(()) } else { Err(BadHost::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use rstest::rstest;

    #[rstest]
    #[case("hello.default.example.com", "hello.default.example.com")]
    #[case("HELLO.Default.example.COM:8080", "hello.default.example.com")]
    #[case("hello.default.example.com.", "hello.default.example.com")]
    #[case("hello.default.example.com.:80", "hello.default.example.com")]
    #[case("hello:", "hello")]
    #[case("[FD00::1]:80", "[fd00::1]")]
    fn hosts_have_one_canonical_form(#[case] text: &str, #[case] host: &str) {
        assert_eq!(Host::normalise(text).unwrap().as_str(), host);
        assert_eq!(Host::normalise(host).unwrap().as_str(), host);
    }

    #[rstest]
    #[case("")]
    #[case(".")]
    #[case(":80")]
    #[case("a:b")]
    #[case("a:99999")]
    #[case("a:80:80")]
    #[case("user@a")]
    #[case("a b")]
    #[case("a/b")]
    #[case("a,b")]
    #[case("[::1")]
    #[case("[::1]x")]
    #[case("[x]")]
    #[case("[a.b]")]
    #[case("[a]")]
    #[case("a..")]
    #[case("a..b")]
    #[case(".a")]
    #[case("ä.example.com")]
    fn invalid_hosts_are_rejected(#[case] text: &str) {
        assert!(Host::normalise(text).is_err());
        assert!(Host::normalise(&"a".repeat(254)).is_err());
    }

    #[rstest]
    #[case("/", &["a.example"], Ok("a.example"))]
    #[case("http://a.example/x", &[], Ok("a.example"))]
    #[case("http://a.example/x", &["A.example"], Ok("a.example"))]
    #[case("http://a.example:80/x", &["a.example"], Ok("a.example"))]
    #[case("http://a.example/x", &["b.example"], Err(BadHost::Several))]
    #[case("/", &["a.example", "a.example"], Err(BadHost::Several))]
    #[case("/", &[], Err(BadHost::Missing))]
    #[case("/", &["a@b"], Err(BadHost::Malformed))]
    fn the_host_of_a_request(#[case] uri: &str, #[case] hosts: &[&str], #[case] expected: Result<&str, BadHost>) {
        let mut request = Request::get(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(Host::of(&parts).as_ref().map(Host::as_str), expected.as_ref().copied());
    }
}
