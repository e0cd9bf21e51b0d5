//! The normal form of a host against a naive reading of the same rules: for a fuzz target, and for the test that replays
//! what it began with and what it has found.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a broken promise is told by panicking")]

use super::Host;

/// Checks every promise about the normal form of `text`.
///
/// # Panics
///
/// If one is broken.
pub fn check(text: &str) {
    let host = Host::normalise(text).ok().map(|host| host.as_str().to_owned());
    assert_eq!(host, naive(text), "{text:?}");
    let Some(host) = host else { return };
    assert_eq!(Host::normalise(&host).as_ref().map(Host::as_str), Ok(host.as_str()), "not its own normal form");
    assert!(!host.ends_with('.') && host == host.to_lowercase() && host.is_ascii(), "{host:?}");
    for same in [format!("{host}:80"), format!("{host}:"), host.to_ascii_uppercase()] {
        assert_eq!(Host::normalise(&same).as_ref().map(Host::as_str), Ok(host.as_str()), "{same:?}");
    }
}

/// `name [":" port]`, the name being labels with dots between and at most one after them, or an address in brackets.
fn naive(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let after_brackets = text.rfind(']').map_or(0, |at| at + 1);
    let (name, port) = match text[after_brackets..].find(':') {
        Some(colon) => (&text[..after_brackets + colon], &text[after_brackets + colon + 1..]),
        None => (&*text, ""),
    };
    if !port.chars().all(|c| c.is_ascii_digit()) || (!port.is_empty() && port.parse::<u32>().ok()? > 65535) {
        return None;
    }
    if let Some(address) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().ok().map(|_| name.to_owned());
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |l: &str| !l.is_empty() && l.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_'));
    (name.len() <= 253 && name.split('.').all(label)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_seeds_have_one_form() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/host");
        let mut read = 0;
        for entry in std::fs::read_dir(&seeds).unwrap() {
            check(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
            read += 1;
        }
        assert!(read > 0, "there are no seeds at {}", seeds.display());
    }

    proptest! {
        #[test]
        fn whatever_looks_like_a_host_has_one_form(text in "[a-zA-F0-9.:_\\[\\]@ -]{0,20}") {
            check(&text);
        }
    }
}
