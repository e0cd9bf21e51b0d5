//! Path matching: which path of a host a request is for.
//!
//! A path matches whole segments: `/api` matches `/api` and `/api/x` and not `/apix`. A function gets the path as it
//! was sent, and may normalise it in another way than it was compared here: decode percent signs, merge slashes,
//! resolve dot segments, in any combination. A request is rejected if any of these normalisations matches another
//! route: a route may exist to keep just that request away.

/// The path is normalised in different ways by different servers, and not all of them match the same route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the path is ambiguous: it has dot segments, empty segments or percent signs, and different normalisations match different routes"
)]
pub struct Ambiguous;

/// What a server does with a path before it compares it.
#[derive(Clone, Copy, Debug)]
struct Normalisation {
    /// Percent signs are decoded once, and a backslash is a slash.
    decodes: bool,
    /// Empty segments are removed.
    merges: bool,
    /// `.` and `..` are resolved.
    resolves: bool,
}

/// The path that matches every request.
pub(super) const ROOT: &str = "/";

/// Looks up the longest path that matches `path`, from long to short down to [`ROOT`]. Every normalisation of `path`
/// must find the same, compared by `same`.
///
/// # Errors
///
/// If normalisations find different ones.
pub(super) fn find_longest<T>(
    path: &str,
    look: impl Fn(&str) -> Option<T>,
    same: impl Fn(&T, &T) -> bool,
) -> Result<Option<T>, Ambiguous> {
    let found = longest(path, &look);
    if is_plain(path) {
        return Ok(found);
    }
    for normalisation in normalisations() {
        let other = longest(&normalisation.of(path), &look);
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

/// Maximum length of a path of a route, in bytes; nothing longer is looked up.
const LONGEST: usize = 256;

/// Looks up the longest path that matches this one by whole segments.
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
            // A target that is no path, such as the `*` of OPTIONS, matches the root only.
            _ => return look(ROOT),
        }
    }
}

/// Whether all normalisations leave the path as it is.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    !bytes.iter().any(|b| matches!(b, b'%' | b'\\')) && !bytes.windows(2).any(|two| matches!(two, b"//" | b"/."))
}

/// Returns all combinations except the one that does nothing.
fn normalisations() -> impl Iterator<Item = Normalisation> {
    (1_u8..8).map(|n| Normalisation { decodes: n & 1 != 0, merges: n & 2 != 0, resolves: n & 4 != 0 })
}

impl Normalisation {
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

/// Decodes percent signs once, and turns backslashes into slashes. A result that is not UTF-8 matches no path of a route.
fn decode(path: &str) -> String {
    let slash = |byte| if byte == b'\\' { b'/' } else { byte };
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(path).map(slash).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn of(paths: &[&'static str], path: &str) -> Result<Option<&'static str>, Ambiguous> {
        find_longest(path, |prefix| paths.iter().copied().find(|p| *p == prefix), |a, b| a == b)
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
    fn the_longest_matching_path(#[case] path: &str, #[case] found: Option<&'static str>) {
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
    // Merging and resolving in different order have different results.
    #[case("/api//../y")]
    fn ambiguous_paths_are_rejected(#[case] path: &str) {
        assert_eq!(of(&["/", "/api"], path), Err(Ambiguous));
        assert_eq!(of(&["/api"], path), Err(Ambiguous));
        assert_eq!(of(&["/"], path), Ok(Some("/")), "there is nothing to confuse");
    }

    #[test]
    fn longer_paths_than_any_route_are_not_looked_up() {
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
        /// Every server comes to the route by which the path of a request was accepted.
        #[test]
        fn every_normalisation_matches_the_same_route(path in "/(api|v1|\\.|\\.\\.|%2e|%2F|%61pi|/|\\\\|x|%){0,6}(/[a-z.%2e]{0,4}){0,3}") {
            super::super::fuzzing::check_path(&path);
        }
    }
}
