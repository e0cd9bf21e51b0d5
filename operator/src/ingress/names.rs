//! Names of the Ingresses.

/// Name of the Ingress with the wildcard that namespaces share.
const SHARED: &str = "rouse";

/// Prefixes of the names of Ingresses, before the namespace.
const HTTP1_PREFIX: &str = "rouse-http1-";
const H2C_PREFIX: &str = "rouse-h2c-";

/// Returns the name of the Ingress for HTTP/1.1 of a namespace.
#[must_use]
pub fn http1_name(namespace: &str) -> String {
    if namespace.is_empty() { SHARED.to_owned() } else { format!("{HTTP1_PREFIX}{namespace}") }
}

/// Returns the name of the Ingress for h2c of a namespace.
#[must_use]
pub fn h2c_name(namespace: &str) -> String {
    format!("{H2C_PREFIX}{namespace}")
}

/// Returns whether an object of this name is one of these Ingresses, or one of those that earlier versions wrote.
pub(super) fn is_ours(name: &str) -> bool {
    name == SHARED || name == "rouse-h2c" || name.starts_with(HTTP1_PREFIX) || name.starts_with(H2C_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_of_namespaces_are_unique() {
        let names: BTreeSet<_> =
            ["h2c", "http1", "h2c-a", "a"].into_iter().flat_map(|n| [http1_name(n), h2c_name(n)]).collect();
        assert_eq!(names.len(), 8);
        assert!(names.iter().all(|name| is_ours(name)));
        assert!(is_ours(&http1_name("")) && !is_ours("rouse-web"));
    }
}
