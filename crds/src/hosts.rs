//! The hosts that a function answers to, and who owns a host that two Functions claim.

mod allowed;
pub mod ownership;

pub use allowed::{AllowedHosts, BadAllowedHosts, NotAllowed};

use crate::function::Function;
use kube::ResourceExt;

/// How default hosts are made, with a domain put in: the chart's `hostTemplate`.
///
/// A template is `{name}…{namespace}….{domain}`, with letters, digits, dashes and dots between, and the name in the first
/// label: `{name}.{namespace}.{domain}`, or `{name}-{namespace}.{domain}` where one wildcard certificate is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTemplate {
    /// Before the name.
    before: String,
    /// Between the name and the namespace.
    between: String,
    /// From the namespace to the end, the domain included.
    after: String,
}

/// The template where nothing else is said.
pub const DEFAULT_TEMPLATE: &str = "{name}.{namespace}.{domain}";

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no host template: it has to be {{name}}, {{namespace}} and {{domain}} in this order and once each, with \
     lower-case letters, digits, dashes and dots between, {{name}} in the first label, and .{{domain}} at its end"
)]
pub struct BadTemplate(String);

/// Whose default host a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultHost<'a> {
    /// It has another form.
    No,
    /// That of the Function of this name and namespace, or of the tag and name that this name is made of.
    Of(&'a str, &'a str),
    /// It has the form, but the template does not tell where the name ends.
    Ambiguous,
}

impl HostTemplate {
    /// A template with its domain.
    ///
    /// # Errors
    ///
    /// If it is not one.
    pub fn new(template: &str, domain: &str) -> Result<Self, BadTemplate> {
        let bad = || BadTemplate(template.to_owned());
        let (before, rest) = template.split_once("{name}").ok_or_else(bad)?;
        let (between, rest) = rest.split_once("{namespace}").ok_or_else(bad)?;
        let after = rest.strip_suffix(".{domain}").ok_or_else(bad)?;
        let plain = |text: &str| text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
        // A probe of it has to be a host name: no empty label, no label that begins or ends with a dash.
        let probe = format!("{before}a{between}a{after}");
        let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
        if before.contains('.')
            || between.is_empty()
            || ![before, between, after].into_iter().all(plain)
            || !probe.split('.').all(label)
        {
            return Err(bad());
        }
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        Ok(Self { before: before.to_owned(), between: between.to_owned(), after: format!("{after}.{domain}") })
    }

    /// Default host of a Function on the ingress.
    #[must_use]
    pub fn host(&self, name: &str, namespace: &str) -> String {
        let Self { before, between, after } = self;
        format!("{before}{name}{between}{namespace}{after}")
    }

    /// Host of a tag of a Function: the default host with `{tag}-{name}` for the name.
    #[must_use]
    pub fn tagged(&self, tag: &str, name: &str, namespace: &str) -> String {
        self.host(&format!("{tag}-{name}"), namespace)
    }

    /// Whose default host this is, whether that Function exists or not. No other Function can have the host.
    #[must_use]
    pub fn read<'a>(&self, host: &'a str) -> DefaultHost<'a> {
        let Self { before, between, after } = self;
        let inside = host.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(after.as_str()));
        let Some((name, namespace)) = inside.and_then(|inside| inside.split_once(between.as_str())) else {
            return DefaultHost::No;
        };
        let whole = |label: &str| !label.is_empty() && !label.contains('.');
        if !whole(name) || !whole(namespace) {
            return DefaultHost::No;
        }
        // Neither a name nor a namespace has a dot, so one that is between them tells them apart.
        if between.contains('.') { DefaultHost::Of(name, namespace) } else { DefaultHost::Ambiguous }
    }

    /// A host with a wildcard as its first label that covers every default host of the namespace and their tags.
    #[must_use]
    pub fn wildcard(&self, namespace: &str) -> String {
        let host = self.host("x", namespace);
        format!("*.{}", host.split_once('.').map_or("", |(_, rest)| rest))
    }
}

/// Every name by which the cluster's DNS search path lets a pod call the function's Service.
#[must_use]
pub fn cluster_hosts(name: &str, namespace: &str, cluster_domain: &str) -> [String; 3] {
    [
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.{cluster_domain}"),
    ]
}

/// Order in which Functions win a host that several claim: the oldest first, and by namespace and name where two are
/// of the same second, so that every reader comes to the same answer.
#[must_use]
pub fn claim_order(function: &Function) -> (i64, String, String) {
    let created = function.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second());
    (created, function.namespace().unwrap_or_default(), function.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_the_cluster() {
        assert_eq!(
            cluster_hosts("hello", "default", "cluster.local"),
            ["hello.default", "hello.default.svc", "hello.default.svc.cluster.local"]
        );
    }

    #[test]
    fn a_default_host_says_whose_it_is() {
        let template = HostTemplate::new(DEFAULT_TEMPLATE, "example.org").unwrap();
        assert_eq!(template.host("pay", "shop"), "pay.shop.example.org");
        assert_eq!(template.tagged("next", "pay", "shop"), "next-pay.shop.example.org");
        assert_eq!(template.wildcard("shop"), "*.shop.example.org");
        assert_eq!(template.read("pay.shop.example.org"), DefaultHost::Of("pay", "shop"));
        for other in ["a.pay.shop.example.org", "shop.example.org", "pay.shop.badexample.org", "pay.shop.example.org.x"]
        {
            assert_eq!(template.read(other), DefaultHost::No, "{other}");
        }
    }

    #[test]
    fn a_template_of_one_label_does_not_tell_where_a_name_ends() {
        let template = HostTemplate::new("fn-{name}-{namespace}.apps.{domain}", "Example.org.").unwrap();
        assert_eq!(template.host("pay", "shop"), "fn-pay-shop.apps.example.org");
        assert_eq!(template.wildcard("shop"), "*.apps.example.org");
        assert_eq!(template.read("fn-pay-shop.apps.example.org"), DefaultHost::Ambiguous);
        assert_eq!(template.read("fn-pay.apps.example.org"), DefaultHost::No);
        assert_eq!(template.read("pay-shop.apps.example.org"), DefaultHost::No);
    }

    #[test]
    fn what_is_no_template() {
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

    #[test]
    fn the_older_function_comes_first() {
        let make = |name: &str, second: i64| {
            let mut f = Function::new(name, crate::FunctionSpec::default());
            f.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                k8s_openapi::jiff::Timestamp::from_second(second).unwrap(),
            ));
            f
        };
        assert!(claim_order(&make("z", 1)) < claim_order(&make("a", 2)));
        assert!(claim_order(&make("a", 1)) < claim_order(&make("b", 1)));
    }
}
