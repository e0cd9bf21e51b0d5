//! The request targets that the HTTP library reads. It refuses others with a response of its own, so the head guard must
//! not pass them.

use http::Uri;
use memchr::memchr;

/// Longest target that the library reads, in bytes.
pub(super) const LONGEST: usize = u16::MAX as usize - 1;

/// In `BYTES`: a byte of a path.
const PATH: u8 = 1;
/// In `BYTES`: a byte of a query.
const QUERY: u8 = 2;

/// Where each byte may be. A byte that is not ASCII may be anywhere, as part of a UTF-8 character. More than RFC 3986
/// allows: clients send brackets, braces and vertical bars as they are, and servers accept them.
const BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            0..=b' ' | 0x7f | b'#' | b'<' | b'>' => 0,
            b'"' => PATH,
            b'?' | b'`' => QUERY,
            _ => PATH | QUERY,
        };
        byte += 1;
    }
    table
};

/// Whether the library reads this target.
pub(super) fn is_readable(target: &[u8]) -> bool {
    if !target.starts_with(b"/") {
        // Rare: an absolute URI, `*`, or the authority of CONNECT.
        return Uri::try_from(target).is_ok() && memchr(b'#', target).is_none();
    }
    let (path, query) = target.split_at(memchr(b'?', target).unwrap_or(target.len()));
    // Without an early exit, so that many bytes are checked at once.
    let all = |part: &[u8], place: u8| part.iter().fold(place, |all, b| all & BYTES[usize::from(*b)]) == place;
    all(path, PATH) && all(query, QUERY) && (target.is_ascii() || std::str::from_utf8(target).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_and_the_library_agree_on_every_byte() {
        for byte in 0..=255 {
            for before in ["/", "/a/", "/?", "/a?b", "/a?b?", "http://a.example/", "http://a.example/?"] {
                let target = [before.as_bytes(), &[byte], b"c"].concat();
                let library = Uri::try_from(&target[..]).is_ok() && byte != b'#';
                assert_eq!(is_readable(&target), library, "{}", target.escape_ascii());
            }
        }
        for (target, readable) in
            [("/\u{e9}", true), ("/?\u{20ac}", true), ("*", true), ("http://", false), ("http://a b", false)]
        {
            assert_eq!(is_readable(target.as_bytes()), readable, "{target}");
        }
        assert!(Uri::try_from("/".repeat(LONGEST)).is_ok() && Uri::try_from("/".repeat(LONGEST + 1)).is_err());
    }
}
