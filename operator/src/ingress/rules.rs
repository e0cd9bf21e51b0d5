//! The rules of the shared Ingress. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, IngressBackend, IngressRule, IngressServiceBackend, ServiceBackendPort,
};
use rouse_crds::{Function, function::Visibility};

use crate::function::Names;

/// Name of the port of the activators' Service that takes calls from the ingress.
const PUBLIC_PORT: &str = "public";

/// One wildcard rule for each namespace with a public function (an Ingress wildcard spans one label), then one for each
/// custom host that its function owns; sorted, so that the same Functions always give the same object. `None` if there is
/// nothing to lead anywhere.
pub fn build<'a>(
    functions: impl Iterator<Item = &'a Function>,
    owns: impl Fn(&Function, &str) -> bool,
    names: &Names,
) -> Option<Vec<IngressRule>> {
    let (mut namespaces, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    for function in functions.filter(|f| f.spec.visibility() == Visibility::Public) {
        namespaces.extend(function.metadata.namespace.as_deref());
        hosts.extend(function.spec.hosts.iter().flatten().filter(|host| fits(host) && owns(function, host)));
    }
    let wildcards = namespaces.into_iter().map(|namespace| format!("*.{namespace}.{}", names.domain));
    let rules: Vec<_> =
        wildcards.chain(hosts.into_iter().cloned()).map(|host| rule(host, &names.activator_service)).collect();
    (!rules.is_empty()).then_some(rules)
}

/// Whether the API server takes it as a host of an Ingress. A single one that it does not take would keep the whole object,
/// and so everybody's changes, from being written; the rules of the Function refuse it, but not one that is older than they.
fn fits(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_err()
}

fn rule(host: String, service: &str) -> IngressRule {
    let backend = IngressBackend {
        service: Some(IngressServiceBackend {
            name: service.to_owned(),
            port: Some(ServiceBackendPort { name: Some(PUBLIC_PORT.to_owned()), number: None }),
        }),
        resource: None,
    };
    let path = HTTPIngressPath { backend, path: Some("/".to_owned()), path_type: "Prefix".to_owned() };
    IngressRule { host: Some(host), http: Some(HTTPIngressRuleValue { paths: vec![path] }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::build::fixtures::names;
    use serde_json::{Value, json};

    fn function(namespace: &str, spec: Value) -> Function {
        let mut whole = json!({
            "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
            "metadata": {"name": "f", "namespace": namespace},
        });
        whole["spec"] = spec;
        whole["spec"]["image"] = json!("i");
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_wildcard_for_each_namespace_and_a_rule_for_each_host() {
        let functions = [
            function("zoo", json!({"hosts": ["z.example.org", "taken.example.org"]})),
            function("app", json!({})),
            function("app", json!({"hosts": ["a.example.org"]})),
            function("hidden", json!({"visibility": "Cluster", "hosts": ["h.example.org"]})),
        ];
        let rules = build(functions.iter(), |_, host| host != "taken.example.org", &names()).unwrap();
        insta::assert_yaml_snapshot!(rules);
        let reversed = build(functions.iter().rev(), |_, host| host != "taken.example.org", &names()).unwrap();
        assert_eq!(rules, reversed);
    }

    #[test]
    fn nothing_public_no_rules() {
        let hidden = function("hidden", json!({"visibility": "Cluster"}));
        assert_eq!(build([&hidden].into_iter(), |_, _| true, &names()), None);
        assert_eq!(build(std::iter::empty(), |_, _| true, &names()), None);
    }
}
