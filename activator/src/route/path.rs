//! Which of the paths of a host a request is for.
//!
//! A path leads a request by whole segments: `/api` leads `/api` and `/api/x` and not `/apix`. A function is called with the
//! path as it was sent, and may read it in another way than the one that was compared here: it may decode percent signs, merge
//! slashes, resolve dot segments, in any combination. A request whose path could lead elsewhere in one of these readings is
//! refused: either answer could be one that a route was made to keep from it.

/// The path is read in different ways by different servers, and not all of them lead to the same route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the path may be read in ways that lead to different routes of this host: it has dot segments, empty segments or percent signs"
)]
pub struct Ambiguous;

/// What a reader does with a path before it compares it.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Percent signs are decoded, once, and a backslash is a slash.
    decodes: bool,
    /// Empty segments are left out.
    merges: bool,
    /// `.` and `..` are carried out.
    resolves: bool,
}

/// What stands for the path that everything is below.
pub(super) const ROOT: &str = "/";

/// What `look` finds for the longest path that leads `path`, from long to short down to [`ROOT`], as long as every reading of
/// `path` comes to the same, told by `same`.
///
/// `key` is empty or what every path is looked up with before it, and is left as it was.
///
/// # Errors
///
/// If readings come to different ends.
pub(super) fn lead<T>(
    path: &str,
    look: impl Fn(&str) -> Option<T>,
    same: impl Fn(&T, &T) -> bool,
) -> Result<Option<T>, Ambiguous> {
    let found = longest(path, &look);
    if is_plain(path) {
        return Ok(found);
    }
    for reading in readings() {
        let other = longest(&reading.of(path), &look);
        let agrees = match (&found, &other) {
            (None, None) => true,
            (Some(one), Some(other)) => same(one, other),
            _ => false,
        };
        if !agrees {
            return Err(Ambiguous);
        }
    }
    Ok(found)
}

/// Every path is one that has at most this many bytes, so nothing longer is looked up.
const LONGEST: usize = 256;

/// What is found for the longest path that leads this one by whole segments.
fn longest<T>(path: &str, look: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut prefix = path;
    loop {
        if prefix.len() <= LONGEST
            && prefix.len() > 1
            && let Some(found) = look(prefix)
        {
            return Some(found);
        }
        match prefix.rfind('/') {
            Some(at) if at > 0 => prefix = &prefix[..at],
            // What is no path, such as the `*` of OPTIONS, is led by what leads everything.
            _ => return look(ROOT),
        }
    }
}

/// Whether all read this path in the same way.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    !bytes.iter().any(|b| matches!(b, b'%' | b'\\')) && !bytes.windows(2).any(|two| matches!(two, b"//" | b"/."))
}

/// All but the one that does nothing.
fn readings() -> impl Iterator<Item = Reading> {
    (1_u8..8).map(|n| Reading { decodes: n & 1 != 0, merges: n & 2 != 0, resolves: n & 4 != 0 })
}

impl Reading {
    fn of(self, path: &str) -> String {
        let decoded = if self.decodes { decode(path) } else { path.to_owned() };
        let Some(inside) = decoded.strip_prefix('/') else { return decoded };
        let mut segments: Vec<&str> = vec![];
        for segment in inside.split('/') {
            match segment {
                "" if self.merges => {}
                "." if self.resolves => {}
                ".." if self.resolves => drop(segments.pop()),
                segment => segments.push(segment),
            }
        }
        format!("/{}", segments.join("/"))
    }
}

/// The path with percent signs decoded once. What then is no text is nothing that a path of a route has.
fn decode(path: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = match (first, after) {
            (b'%', [high, low, ..]) => digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        if byte.is_some() {
            rest = &after[2..];
        }
        bytes.push(match byte.unwrap_or(*first) {
            b'\\' => b'/',
            byte => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn of(paths: &[&'static str], path: &str) -> Result<Option<&'static str>, Ambiguous> {
        lead(path, |prefix| paths.iter().copied().find(|p| *p == prefix), |a, b| a == b)
    }

    #[rstest]
    #[case("/api", Some("/api"))]
    #[case("/api/", Some("/api"))]
    #[case("/api/x", Some("/api"))]
    #[case("/apix", Some("/"))]
    #[case("/api/v1", Some("/api/v1"))]
    #[case("/api/v1/", Some("/api/v1"))]
    #[case("/api/v10", Some("/api"))]
    #[case("/", Some("/"))]
    #[case("*", Some("/"))]
    #[case("/API", Some("/"))]
    #[case("/.well-known/x", Some("/"))]
    #[case("/api/a%20b", Some("/api"))]
    #[case("/api/a%2Fb", Some("/api"))]
    #[case("/api/x/../y", Some("/api"))]
    #[case("/x//y", Some("/"))]
    #[case("/x/%zz", Some("/"))]
    fn the_longest_that_leads(#[case] path: &str, #[case] found: Option<&'static str>) {
        assert_eq!(of(&["/", "/api", "/api/v1"], path), Ok(found));
        let without = found.filter(|f| *f != "/");
        assert_eq!(of(&["/api", "/api/v1"], path), Ok(without));
    }

    #[rstest]
    #[case("/api/../x")]
    #[case("/x/../api")]
    #[case("/api/%2e%2e/x")]
    #[case("/x/%2E./api")]
    #[case("//api")]
    #[case("/x%2f../api")]
    #[case("/x/..%2fapi")]
    #[case("/%61pi")]
    #[case("/api%2fx")]
    #[case("/api\\x")]
    #[case("/x\\..\\api")]
    #[case("/./api")]
    #[case("/%2e/api")]
    #[case("/%2fapi")]
    #[case("/api/x/../../y")]
    // No two of merging and resolving come to the same.
    #[case("/api//../y")]
    fn two_readings_are_none(#[case] path: &str) {
        assert_eq!(of(&["/", "/api"], path), Err(Ambiguous));
        assert_eq!(of(&["/api"], path), Err(Ambiguous));
        assert_eq!(of(&["/"], path), Ok(Some("/")), "there is nothing to confuse");
    }

    #[test]
    fn what_is_longer_than_every_path_is_not_looked_up() {
        let long = format!("/api{}", "/x".repeat(8000));
        assert_eq!(of(&["/api"], &long), Ok(Some("/api")));
        let asked = std::cell::Cell::new(0);
        longest(&long, |_| {
            asked.set(asked.get() + 1);
            None::<()>
        });
        assert!(asked.get() <= LONGEST / 2 + 1, "{}", asked.get());
    }

    proptest! {
        /// Whoever reads the path of a request that was let through comes to the route that it was let through by.
        #[test]
        fn every_reader_comes_to_the_same(path in "/(api|v1|\\.|\\.\\.|%2e|%2F|%61pi|/|\\\\|x|%){0,6}(/[a-z.%2e]{0,4}){0,3}") {
            super::super::fuzzing::check_path(&path);
        }
    }
}
