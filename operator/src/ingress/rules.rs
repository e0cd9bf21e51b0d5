//! The rules of the shared Ingresses. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, IngressBackend, IngressRule, IngressServiceBackend, ServiceBackendPort,
};
use rouse_crds::{
    Function,
    function::{Protocol, Visibility},
};

use crate::function::Names;

/// What leads where.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// To the activators by HTTP/1.1, which carries everything but gRPC, and alone carries WebSocket.
    pub http1: Vec<IngressRule>,
    /// To the activators by HTTP/2.
    pub h2c: Vec<IngressRule>,
}

/// Name of the port that takes calls from the ingress, in both of the activators' Services that have it.
const PUBLIC_PORT: &str = "public";

/// One wildcard rule for each namespace with a public function (an Ingress wildcard spans one label), then one for each
/// custom host that its function owns; sorted, so that the same Functions always give the same objects. A function that
/// speaks h2c has a rule for each of its hosts, the default one too: an exact host wins over a wildcard.
pub fn build<'a>(
    functions: impl Iterator<Item = &'a Function>,
    owns: impl Fn(&Function, &str) -> bool,
    names: &Names,
) -> Rules {
    let (mut namespaces, mut http1, mut h2c) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for function in functions.filter(|f| f.spec.visibility() == Visibility::Public) {
        let Some(namespace) = function.metadata.namespace.as_deref() else { continue };
        namespaces.insert(namespace);
        let custom = function.spec.hosts.iter().flatten().filter(|host| owns(function, host)).cloned();
        match function.spec.protocol() {
            Protocol::Http1 => http1.extend(custom),
            Protocol::H2c => {
                let name = function.metadata.name.as_deref().unwrap_or_default();
                h2c.extend(custom.chain([names.hosts.host(name, namespace)]));
            }
        }
    }
    // By some templates all namespaces have one wildcard.
    let wildcards: BTreeSet<_> = namespaces.into_iter().map(|namespace| names.hosts.wildcard(namespace)).collect();
    let rules = |hosts: BTreeSet<String>, service: &str| -> Vec<_> {
        hosts.into_iter().filter(|host| fits(host)).map(|host| rule(host, service)).collect()
    };
    let mut led: Vec<_> = wildcards.into_iter().map(|host| rule(host, &names.activator_service)).collect();
    led.extend(rules(http1, &names.activator_service));
    Rules { http1: led, h2c: rules(h2c, &names.h2c_service()) }
}

/// Whether the API server takes it as a host of an Ingress. A single one that it does not take would keep the whole object,
/// and so everybody's changes, from being written; the rules of the Function refuse it, but not one that is older than they.
fn fits(host: &str) -> bool {
    host.len() <= 253 && host.parse::<std::net::IpAddr>().is_err()
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
    use rouse_crds::hosts::{DEFAULT_TEMPLATE, HostTemplate};
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
        let rules = build(functions.iter(), |_, host| host != "taken.example.org", &names());
        insta::assert_yaml_snapshot!(rules.http1);
        assert_eq!(rules.h2c, []);
        let reversed = build(functions.iter().rev(), |_, host| host != "taken.example.org", &names());
        assert_eq!(rules, reversed);
    }

    #[test]
    fn every_host_of_a_function_that_speaks_h2c_is_led_by_http2() {
        let grpc = function("app", json!({"protocol": "h2c", "hosts": ["g.example.org", "taken.example.org"]}));
        let hidden = function("app", json!({"protocol": "h2c", "visibility": "Cluster"}));
        let rules = build([&grpc, &hidden].into_iter(), |_, host| host != "taken.example.org", &names());
        let led = |rules: &[IngressRule]| -> Vec<_> {
            let service = |r: &IngressRule| r.http.as_ref()?.paths[0].backend.service.as_ref().map(|s| s.name.clone());
            rules.iter().map(|r| (r.host.clone().unwrap(), service(r).unwrap())).collect()
        };
        let to = |host: &str, service: &str| (host.to_owned(), service.to_owned());
        assert_eq!(led(&rules.http1), [to("*.app.example.com", "rouse-activator")]);
        let h2c = "rouse-activator-h2c";
        assert_eq!(led(&rules.h2c), [to("f.app.example.com", h2c), to("g.example.org", h2c)]);
    }

    #[test]
    fn a_host_that_no_ingress_can_have_keeps_no_other_from_being_written() {
        let address = function("app", json!({"hosts": ["10.0.0.1", "a.example.org"]}));
        let mut long = function(&"n".repeat(63), json!({"protocol": "h2c"}));
        long.metadata.name = Some("f".repeat(45));
        let domain = format!("{}.example", ["d"; 80].join("."));
        let far = Names { hosts: HostTemplate::new(DEFAULT_TEMPLATE, &domain).unwrap(), ..names() };
        let rules = build([&address, &long].into_iter(), |_, _| true, &far);
        assert_eq!(rules.http1.len(), 3, "{:?}", rules.http1);
        assert_eq!(rules.h2c, []);
    }

    #[test]
    fn nothing_public_no_rules() {
        let hidden = function("hidden", json!({"visibility": "Cluster"}));
        assert_eq!(build([&hidden].into_iter(), |_, _| true, &names()), Rules::default());
        assert_eq!(build(std::iter::empty(), |_, _| true, &names()), Rules::default());
    }
}
