//! Harness for fuzz targets: the canonical form of a host and the choice of a path, compared with naive
//! implementations; also for the test that replays seeds and findings.
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a violated invariant panics")]

use super::{
    Host,
    path::{Ambiguous, ROOT, find_longest},
};

/// Paths of a host, in addition to the root.
const PATHS: [&str; 3] = ["/api", "/api/v1", "/x"];

/// Checks that every server comes to the same route for a path that was accepted: with or without decoding, merging and
/// resolving, each implemented step by step on its own.
///
/// # Panics
///
/// If one does not.
pub fn check_path(path: &str) {
    if !path.starts_with('/') {
        return;
    }
    let look = |prefix: &str| PATHS.iter().copied().chain([ROOT]).find(|known| *known == prefix);
    let found = find_longest(path, look, |one, other| one == other);
    let mut ends: Vec<_> = (0..8).map(|n| naive_end(path, n)).collect();
    ends.dedup();
    match found {
        Ok(Some(found)) => assert!(ends.iter().all(|end| *end == found), "{path:?}: {found} of {ends:?}"),
        Ok(None) => panic!("{path:?} leads nowhere"),
        Err(Ambiguous) => assert!(ends.len() > 1, "{path:?}: all come to {ends:?}"),
    }
    // A path without ambiguous parts is accepted.
    if path.split('/').skip(1).all(|s| !s.starts_with('.') && !s.contains(['%', '\\'])) && !path.contains("//") {
        assert!(found.is_ok(), "{path:?}");
    }
}

/// Returns the route of a server that decodes, merges and resolves as the bits of `reader` say.
fn naive_end(path: &str, reader: u8) -> &'static str {
    let mut text = path.to_owned();
    if reader & 1 != 0 {
        let (mut decoded, bytes) = (vec![], text.as_bytes());
        let mut at = 0;
        while at < bytes.len() {
            let hex =
                text.get(at + 1..at + 3).filter(|h| bytes[at] == b'%' && h.bytes().all(|b| b.is_ascii_hexdigit()));
            decoded.push(hex.map_or(bytes[at], |hex| u8::from_str_radix(hex, 16).unwrap()));
            at += if hex.is_some() { 3 } else { 1 };
        }
        text = String::from_utf8_lossy(&decoded).replace('\\', "/");
    }
    let mut segments: std::collections::VecDeque<String> = text.split('/').skip(1).map(str::to_owned).collect();
    if reader & 2 != 0 {
        segments.retain(|segment| !segment.is_empty());
    }
    let mut kept: Vec<String> = vec![];
    while let Some(segment) = segments.pop_front() {
        match segment.as_str() {
            "." if reader & 4 != 0 => {}
            ".." if reader & 4 != 0 => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let leads = |path: &str| {
        let wanted: Vec<_> = path.split('/').skip(1).collect();
        kept.len() >= wanted.len() && wanted.iter().zip(&kept).all(|(wanted, kept)| wanted == kept)
    };
    PATHS.iter().copied().filter(|path| leads(path)).max_by_key(|path| path.len()).unwrap_or(ROOT)
}

/// Checks every invariant of the canonical form of `text`.
///
/// # Panics
///
/// If one does not hold.
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

/// `name [":" port]`: the name is labels separated by dots, with an optional trailing dot, or an address in brackets.
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
    fn the_seeds_uphold_every_invariant() {
        for (target, check) in [("host", check as fn(&str)), ("path", check_path)] {
            let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
            let mut read = 0;
            for entry in std::fs::read_dir(&seeds).unwrap() {
                check(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
                read += 1;
            }
            assert!(read > 0, "there are no seeds at {}", seeds.display());
        }
    }

    proptest! {
        #[test]
        fn every_host_has_one_canonical_form(text in "[a-zA-F0-9.:_\\[\\]@ -]{0,20}") {
            check(&text);
        }
    }
}
