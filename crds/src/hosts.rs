//! Default hosts of Functions ([`HostTemplate`]), and the ownership of hosts that several Functions claim
//! ([`ownership`]).

mod allowed;
pub mod ownership;

pub use allowed::{AllowedHosts, BadAllowedHosts, EVERYONE, NotAllowed};

/// Template of default hosts with its domain: the chart value `hostTemplate`.
///
/// A template has the form `{name}…{namespace}….{domain}`, with letters, digits, dashes and dots in between, and the
/// name in the first label: `{name}.{namespace}.{domain}`, or `{name}-{namespace}.{domain}` for a single wildcard
/// certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTemplate {
    /// Text before the name.
    before: String,
    /// Text between the name and the namespace.
    between: String,
    /// Text after the namespace, including the domain.
    after: String,
    domain: String,
}

/// Default template.
pub const DEFAULT_TEMPLATE: &str = "{name}.{namespace}.{domain}";

/// Error: a text is not a host template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a host template: it must contain {{name}}, {{namespace}} and {{domain}} once each and in this order, \
     separated by lower-case letters, digits, dashes and dots, with {{name}} in the first label and .{{domain}} at the end"
)]
pub struct BadTemplate(String);

/// Result of matching a host against the template of default hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultHost<'a> {
    /// The host does not match the template.
    No,
    /// Default host of the Function with this name and namespace, or host of a tag of it (the name is then
    /// `{tag}-{name}`).
    Of(&'a str, &'a str),
    /// The host matches, but the template does not determine where the name ends.
    Ambiguous,
    /// The domain, or another host whose subdomains are default hosts. A cookie that it sets reaches them.
    Parent,
}

impl HostTemplate {
    /// Parses a template and inserts the domain.
    ///
    /// # Errors
    ///
    /// If `template` is not a host template.
    pub fn new(template: &str, domain: &str) -> Result<Self, BadTemplate> {
        let bad = || BadTemplate(template.to_owned());
        let (before, rest) = template.split_once("{name}").ok_or_else(bad)?;
        let (between, rest) = rest.split_once("{namespace}").ok_or_else(bad)?;
        let after = rest.strip_suffix(".{domain}").ok_or_else(bad)?;
        let plain = |text: &str| text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
        // A sample must be a host name: no empty label, no label that starts or ends with a dash.
        let sample = format!("{before}a{between}a{after}");
        let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
        if before.contains('.')
            || between.is_empty()
            || ![before, between, after].into_iter().all(plain)
            || !sample.split('.').all(label)
        {
            return Err(bad());
        }
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        let after = format!("{after}.{domain}");
        Ok(Self { before: before.to_owned(), between: between.to_owned(), after, domain })
    }

    /// Returns whether two Functions of different namespaces may have the same default host: whoever is older has it, and the
    /// other one as soon as that is deleted.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        !self.between.contains('.')
    }

    /// Returns the default host of a Function.
    #[must_use]
    pub fn host(&self, name: &str, namespace: &str) -> String {
        let Self { before, between, after, .. } = self;
        format!("{before}{name}{between}{namespace}{after}")
    }

    /// Returns the host of a tag: the default host with `{tag}-{name}` as the name.
    #[must_use]
    pub fn tagged(&self, tag: &str, name: &str, namespace: &str) -> String {
        self.host(&format!("{tag}-{name}"), namespace)
    }

    /// Matches a host against the template, whether or not the Function exists. No other Function can own a default
    /// host.
    #[must_use]
    pub fn read<'a>(&self, host: &'a str) -> DefaultHost<'a> {
        let Self { before, between, after, .. } = self;
        let inside = host.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(after.as_str()));
        let whole = |label: &str| !label.is_empty() && !label.contains('.');
        let parts = inside.and_then(|inside| inside.split_once(between.as_str()));
        let Some((name, namespace)) = parts.filter(|(name, namespace)| whole(name) && whole(namespace)) else {
            return if self.is_parent(host) { DefaultHost::Parent } else { DefaultHost::No };
        };
        // Names and namespaces contain no dot, so a dot between them separates them.
        if self.is_ambiguous() { DefaultHost::Ambiguous } else { DefaultHost::Of(name, namespace) }
    }

    /// Returns whether default hosts are subdomains of this host, which is the domain or below it.
    fn is_parent(&self, host: &str) -> bool {
        let Self { between, after, domain, .. } = self;
        let below = |name: &str, parent: &str| {
            name.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if !below(host, domain) {
            return false;
        }
        // What all default hosts end with.
        let common = after.split_once('.').map_or("", |(_, rest)| rest);
        if below(common, host) {
            return true;
        }
        // What the default hosts of one namespace end with, from each of the labels after the name on.
        let labels = between.match_indices('.').map(|(dot, _)| &between[dot + 1..]);
        labels.into_iter().any(|before| {
            let namespace = host.strip_prefix(before).and_then(|rest| rest.strip_suffix(after.as_str()));
            namespace.is_some_and(|namespace| !namespace.is_empty() && !namespace.contains('.'))
        })
    }

    /// Returns the wildcard host that covers every default host and tag of a namespace.
    #[must_use]
    pub fn wildcard(&self, namespace: &str) -> String {
        let host = self.host("x", namespace);
        format!("*.{}", host.split_once('.').map_or("", |(_, rest)| rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_host_identifies_its_function() {
        let template = HostTemplate::new(DEFAULT_TEMPLATE, "example.org").unwrap();
        assert_eq!(template.host("pay", "shop"), "pay.shop.example.org");
        assert_eq!(template.tagged("next", "pay", "shop"), "next-pay.shop.example.org");
        assert_eq!(template.wildcard("shop"), "*.shop.example.org");
        assert_eq!(template.read("pay.shop.example.org"), DefaultHost::Of("pay", "shop"));
        for other in ["a.pay.shop.example.org", "pay.shop.badexample.org", "pay.shop.example.org.x", "org"] {
            assert_eq!(template.read(other), DefaultHost::No, "{other}");
        }
    }

    #[test]
    fn parents_of_default_hosts_are_no_custom_hosts() {
        let read =
            |template, host| HostTemplate::new(template, "fn.example.org").unwrap().read(host) == DefaultHost::Parent;
        let cases = [
            (
                DEFAULT_TEMPLATE,
                ["fn.example.org", "shop.fn.example.org"].as_slice(),
                ["example.org", "a.b.c.fn.example.org"],
            ),
            (
                "{name}.x.{namespace}-f.apps.{domain}",
                &[
                    "fn.example.org",
                    "apps.fn.example.org",
                    "shop-f.apps.fn.example.org",
                    "x.shop-f.apps.fn.example.org",
                ],
                ["shop.apps.fn.example.org", "y.shop-f.apps.fn.example.org"],
            ),
            ("{name}-{namespace}.{domain}", &["fn.example.org"], ["shop.fn.example.org", "badfn.example.org"]),
        ];
        for (template, parents, others) in cases {
            assert!(parents.iter().all(|host| read(template, host)), "{template}");
            assert!(!others.iter().any(|host| read(template, host)), "{template}");
        }
    }

    #[test]
    fn template_with_a_single_label_is_ambiguous() {
        let template = HostTemplate::new("fn-{name}-{namespace}.apps.{domain}", "Example.org.").unwrap();
        assert_eq!(template.host("pay", "shop"), "fn-pay-shop.apps.example.org");
        assert_eq!(template.wildcard("shop"), "*.apps.example.org");
        assert_eq!(template.read("fn-pay-shop.apps.example.org"), DefaultHost::Ambiguous);
        assert_eq!(template.read("fn-pay.apps.example.org"), DefaultHost::No);
        assert_eq!(template.read("pay-shop.apps.example.org"), DefaultHost::No);
    }

    #[test]
    fn rejects_invalid_templates() {
        for bad in [
            "",
            "{name}.{domain}",
            "{namespace}.{name}.{domain}",
            "{name}{namespace}.{domain}",
            "{name}.{namespace}{domain}",
            "a.{name}.{namespace}.{domain}",
            "-{name}.{namespace}.{domain}",
            "{name}..{namespace}.{domain}",
            "{name}.{namespace}-.{domain}",
            "{name}_{namespace}.{domain}",
            "{name}.{namespace}.{name}.{domain}",
            "{name}.{namespace}.{domain}.x",
        ] {
            assert!(HostTemplate::new(bad, "example.org").is_err(), "{bad}");
        }
    }
}
