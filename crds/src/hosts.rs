//! The hosts that a function answers to, and who owns a host that two Functions claim.

use crate::function::Function;
use kube::ResourceExt;

/// Default host on the ingress: `{name}.{namespace}.{domain}`.
#[must_use]
pub fn default_host(name: &str, namespace: &str, domain: &str) -> String {
    format!("{name}.{namespace}.{domain}")
}

/// Name and namespace of the Function whose default host this is, whether that Function exists or not. No other Function
/// can have the host.
#[must_use]
pub fn default_host_of<'a>(host: &'a str, domain: &str) -> Option<(&'a str, &'a str)> {
    let (name, namespace) = host.strip_suffix(domain)?.strip_suffix('.')?.split_once('.')?;
    (!namespace.contains('.')).then_some((name, namespace))
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
        assert_eq!(default_host("hello", "default", "example.org"), "hello.default.example.org");
        assert_eq!(
            cluster_hosts("hello", "default", "cluster.local"),
            ["hello.default", "hello.default.svc", "hello.default.svc.cluster.local"]
        );
    }

    #[test]
    fn a_default_host_says_whose_it_is() {
        assert_eq!(default_host_of("pay.shop.example.org", "example.org"), Some(("pay", "shop")));
        assert_eq!(default_host_of("a.pay.shop.example.org", "example.org"), None);
        assert_eq!(default_host_of("shop.example.org", "example.org"), None);
        assert_eq!(default_host_of("pay.shop.badexample.org", "example.org"), None);
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
