//! Rules for which namespaces may claim which custom hosts: the chart value `hosts.allowed`.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// Rules for custom hosts. Without rules, no namespace may claim any. [`EVERYONE`] lifts that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<Rule>);

/// A rule: namespaces that may claim hosts of some domains.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    /// `shop.example.org` for this host, `*.shop.example.org` for its subdomains, or `*` for all.
    domains: Vec<String>,
    /// Names of namespaces; one `*` in a name matches any text.
    namespaces: Vec<String>,
}

/// Error in a list of rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAllowedHosts {
    /// The text is not such a JSON list.
    #[error(
        "not a JSON list of objects like {{\"domains\": [\"*.shop.example.org\"], \"namespaces\": [\"shop-*\"]}}: {0}"
    )]
    Shape(String),
    /// A rule without domains or namespaces.
    #[error("rule {0} needs at least one domain and one namespace")]
    Empty(usize),
    /// An invalid domain.
    #[error("rule {0}: `{1}` is not a lower-case domain such as shop.example.org, *.shop.example.org, or * for all")]
    Domain(usize, String),
    /// An invalid namespace.
    #[error("rule {0}: `{1}` is not a namespace name with at most one *")]
    Namespace(usize, String),
}

/// Why a namespace may not claim a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAllowed {
    /// A rule reserves the host for other namespaces.
    Others {
        /// Number of the rule, from 1.
        rule: usize,
        /// Domain of the rule that matches the host.
        domain: String,
        /// Namespaces of the rule.
        namespaces: String,
    },
    /// No rule matches the host.
    Nobody,
}

impl FromStr for AllowedHosts {
    type Err = BadAllowedHosts;

    /// Parses a JSON list. An empty text is an empty list.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let rules: Vec<Rule> = serde_json::from_str(text).map_err(|error| BadAllowedHosts::Shape(error.to_string()))?;
        for (index, rule) in rules.iter().enumerate() {
            let number = index + 1;
            if rule.domains.is_empty() || rule.namespaces.is_empty() {
                return Err(BadAllowedHosts::Empty(number));
            }
            if let Some(bad) = rule.domains.iter().find(|domain| !is_domain(domain)) {
                return Err(BadAllowedHosts::Domain(number, bad.clone()));
            }
            if let Some(bad) = rule.namespaces.iter().find(|namespace| !is_namespace(namespace)) {
                return Err(BadAllowedHosts::Namespace(number, bad.clone()));
            }
        }
        Ok(Self(rules))
    }
}

/// The rule that lets every namespace claim every host that no other Function owns, for a cluster of a single team.
pub const EVERYONE: &str = r#"[{"domains": ["*"], "namespaces": ["*"]}]"#;

impl AllowedHosts {
    /// Checks whether a namespace may claim a host. The host is in lower case and has no trailing dot.
    ///
    /// # Errors
    ///
    /// If the namespace may not: the namespaces for which the host is reserved.
    pub fn check(&self, host: &str, namespace: &str) -> Result<(), NotAllowed> {
        let mut refused = NotAllowed::Nobody;
        for (index, rule) in self.0.iter().enumerate() {
            let Some(domain) = rule.domains.iter().find(|domain| covers(domain, host)) else { continue };
            if rule.namespaces.iter().any(|pattern| names(pattern, namespace)) {
                return Ok(());
            }
            if refused == NotAllowed::Nobody {
                refused = NotAllowed::Others {
                    rule: index + 1,
                    domain: domain.clone(),
                    namespaces: rule.namespaces.join(", "),
                };
            }
        }
        Err(refused)
    }
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Others { rule, domain, namespaces } => {
                write!(
                    f,
                    "rule {rule} of the chart value hosts.allowed reserves {domain} for the namespaces {namespaces}"
                )
            }
            Self::Nobody => f.write_str("no rule of the chart value hosts.allowed allows the host"),
        }
    }
}

fn covers(domain: &str, host: &str) -> bool {
    match domain.strip_prefix('*') {
        Some("") => true,
        // Including the dot, so `*.example.org` matches neither `example.org` nor `badexample.org`.
        Some(below) => host.len() > below.len() && host.ends_with(below),
        None => domain == host,
    }
}

fn names(pattern: &str, namespace: &str) -> bool {
    match pattern.split_once('*') {
        Some((before, after)) => {
            namespace.len() >= before.len() + after.len() && namespace.starts_with(before) && namespace.ends_with(after)
        }
        None => pattern == namespace,
    }
}

fn is_domain(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    text == "*" || (name.len() <= 253 && name.split('.').all(label))
}

fn is_namespace(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().filter(|b| *b == b'*').count() <= 1
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const SHOP: &str = r#"[
        {"domains": ["*.shop.example.org", "shop.example.org"], "namespaces": ["shop", "shop-*"]},
        {"domains": ["*.eu.shop.example.org"], "namespaces": ["eu"]},
        {"domains": ["*"], "namespaces": ["platform"]}
    ]"#;

    #[rstest]
    #[case("shop.example.org", "shop", true)]
    #[case("a.b.shop.example.org", "shop-next", true)]
    #[case("shop.example.org", "shopping", false)]
    #[case("shop.example.org", "my-shop", false)]
    #[case("a.eu.shop.example.org", "eu", true)]
    #[case("a.shop.example.org", "eu", false)]
    #[case("badshop.example.org", "shop", false)]
    #[case("anything.example.com", "platform", true)]
    fn namespaces_that_may_claim_a_host(#[case] host: &str, #[case] namespace: &str, #[case] allowed: bool) {
        let rules: AllowedHosts = SHOP.parse().unwrap();
        assert_eq!(rules.check(host, namespace).is_ok(), allowed);
        assert_eq!(AllowedHosts::default().check(host, namespace), Err(NotAllowed::Nobody));
        assert_eq!(EVERYONE.parse::<AllowedHosts>().unwrap().check(host, namespace), Ok(()));
    }

    #[test]
    fn refusal_names_the_rule() {
        let refusal = |rules: &str, host, namespace| {
            rules.parse::<AllowedHosts>().unwrap().check(host, namespace).unwrap_err().to_string()
        };
        let others = refusal(SHOP, "a.shop.example.org", "zoo");
        assert!(others.contains("rule 1 ") && others.contains("*.shop.example.org for the namespaces shop, shop-*"));
        let rule = r#"[{"domains": ["a.example.org"], "namespaces": ["a"]}]"#;
        assert!(refusal(rule, "b.example.org", "a").starts_with("no rule"));
    }

    #[rstest]
    #[case("", None)]
    #[case("[]", None)]
    #[case("{}", Some("JSON list"))]
    #[case(r#"[{"domains": ["a.b"], "namespace": ["c"]}]"#, Some("unknown field `namespace`"))]
    #[case(r#"[{"domains": ["a.b"], "namespaces": []}]"#, Some("rule 1 needs"))]
    #[case(
        r#"[{"domains": ["a.b"], "namespaces": ["c"]}, {"domains": ["A.b"], "namespaces": ["c"]}]"#,
        Some("rule 2: `A.b`")
    )]
    #[case(r#"[{"domains": ["a.*.b"], "namespaces": ["c"]}]"#, Some("`a.*.b`"))]
    #[case(r#"[{"domains": ["*a.b"], "namespaces": ["c"]}]"#, Some("`*a.b`"))]
    #[case(r#"[{"domains": ["a.b"], "namespaces": ["*c*"]}]"#, Some("`*c*`"))]
    fn rejects_invalid_rules(#[case] text: &str, #[case] wrong: Option<&str>) {
        match (text.parse::<AllowedHosts>(), wrong) {
            (Ok(rules), None) => assert_eq!(rules, AllowedHosts::default()),
            (Err(error), Some(wrong)) => assert!(error.to_string().contains(wrong), "{error}"),
            (read, _) => panic!("{read:?}"),
        }
    }
}
