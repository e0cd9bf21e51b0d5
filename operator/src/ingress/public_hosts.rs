//! Which hosts and paths lead to the activators, and by which version of HTTP. Pure, and of no kind of object yet.

use std::collections::{BTreeMap, BTreeSet};

use rouse_crds::{
    Function,
    function::{Protocol, Visibility},
    hosts::{HostTemplate, ownership::Form},
};

use crate::{cluster::key::FunctionKey, hosts::Won};

/// Hosts, each with the paths below which it leads there. A host may be a wildcard.
pub type Hosts = BTreeMap<String, BTreeSet<String>>;

/// What leads to the activators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// By HTTP/1.1, which carries everything but gRPC, and alone carries WebSocket.
    pub http1: Hosts,
    /// By HTTP/2.
    pub h2c: Hosts,
}

/// One wildcard for each namespace with a public function (a wildcard of an Ingress spans one label), and each custom host
/// that a function has won. A function that speaks h2c has each of its hosts there, the default one too: an exact host wins
/// over a wildcard. Activators tell paths apart themselves, so a host stands whole, unless its functions speak differently.
pub fn build<'a>(functions: impl Iterator<Item = &'a Function>, won: &Won, template: &HostTemplate) -> Ways {
    let mut ways = Ways::default();
    for function in functions.filter(|f| f.spec.visibility() == Visibility::Public) {
        let (Some(namespace), Some(name)) = (&function.metadata.namespace, &function.metadata.name) else { continue };
        // By some templates all namespaces have one wildcard.
        whole(&mut ways.http1, template.wildcard(namespace));
        let speaks_h2c = function.spec.protocol() == Protocol::H2c;
        for claim in won.get(&FunctionKey::new(namespace, name)).into_iter().flatten() {
            let hosts = match (speaks_h2c, claim.form) {
                (true, _) => &mut ways.h2c,
                (false, Form::Custom) => &mut ways.http1,
                (false, Form::Default | Form::Tag) => continue,
            };
            if fits(&claim.host) {
                hosts.entry(claim.host.to_string()).or_default().insert(claim.path.to_string());
            }
        }
    }
    let Ways { http1, h2c } = &mut ways;
    for (host, paths) in http1.iter_mut() {
        if !h2c.contains_key(host) {
            *paths = root();
        }
    }
    for (host, paths) in h2c.iter_mut() {
        if !http1.contains_key(host) {
            *paths = root();
        }
    }
    ways
}

fn whole(hosts: &mut Hosts, host: String) {
    hosts.entry(host).or_insert_with(root);
}

fn root() -> BTreeSet<String> {
    BTreeSet::from(["/".to_owned()])
}

/// Whether the API server takes it as a host of an Ingress or an HTTPRoute. A single one that it does not take would keep the
/// whole object, and so everybody's changes, from being written; the rules of the Function refuse it, but not one that is
/// older than they.
fn fits(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    host.len() <= 253 && host.split('.').all(label) && host.parse::<std::net::IpAddr>().is_err()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::hosts::Claims;
    use rouse_crds::hosts::{DEFAULT_TEMPLATE, ownership::Rules};
    use serde_json::{Value, json};

    pub(in crate::ingress) fn function(namespace: &str, name: &str, spec: Value) -> Function {
        let mut whole = json!({
            "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z"},
        });
        whole["spec"] = spec;
        whole["spec"]["image"] = json!("i");
        serde_json::from_value(whole).unwrap()
    }

    pub(in crate::ingress) fn ways(functions: &[Function], template: &str, domain: &str) -> Ways {
        let template = HostTemplate::new(template, domain).unwrap();
        let rules = Rules { template: template.clone(), allowed: "".parse().unwrap() };
        let (won, _) = Claims::new(rules).replace(functions.iter());
        let ways = build(functions.iter(), &won, &template);
        assert_eq!(ways, build(functions.iter().rev(), &won, &template), "the order must not matter");
        ways
    }

    fn said(hosts: &Hosts) -> Vec<String> {
        hosts.iter().map(|(host, paths)| paths.iter().fold(host.clone(), |all, path| all + " " + path)).collect()
    }

    #[test]
    fn a_wildcard_for_each_namespace_and_each_host_that_was_won() {
        let functions = [
            function("zoo", "z", json!({"hosts": ["z.example.org", "taken.example.org"]})),
            function("app", "a", json!({"hosts": ["taken.example.org"]})),
            function("app", "b", json!({"routes": [{"host": "a.example.org", "path": "/api"}, {"path": "/x"}]})),
            function("hidden", "h", json!({"visibility": "Cluster", "hosts": ["h.example.org"]})),
        ];
        let ways = ways(&functions, DEFAULT_TEMPLATE, "example.com");
        let expected =
            ["*.app.example.com /", "*.zoo.example.com /", "a.example.org /", "taken.example.org /", "z.example.org /"];
        assert_eq!((said(&ways.http1), ways.h2c), (expected.map(String::from).into(), Hosts::new()));
    }

    #[test]
    fn every_host_of_a_function_that_speaks_h2c_is_led_by_http2() {
        let tag = json!([{"latest": true, "percent": 100, "tag": "t"}]);
        let functions = [
            function("app", "f", json!({"protocol": "h2c", "hosts": ["g.example.org"], "traffic": tag})),
            function("app", "h", json!({"protocol": "h2c", "visibility": "Cluster"})),
        ];
        let ways = ways(&functions, DEFAULT_TEMPLATE, "example.com");
        assert_eq!(said(&ways.http1), ["*.app.example.com /"]);
        assert_eq!(said(&ways.h2c), ["f.app.example.com /", "g.example.org /", "t-f.app.example.com /"]);
    }

    #[test]
    fn a_host_whose_functions_speak_differently_is_cut_by_path() {
        let functions = [
            function("app", "web", json!({"hosts": ["a.example.org"]})),
            function("app", "rpc", json!({"protocol": "h2c", "routes": [{"host": "a.example.org", "path": "/rpc"}]})),
        ];
        let ways = ways(&functions, DEFAULT_TEMPLATE, "example.com");
        assert_eq!(said(&ways.http1), ["*.app.example.com /", "a.example.org /"]);
        assert_eq!(said(&ways.h2c), ["a.example.org /rpc", "rpc.app.example.com /"]);
    }

    #[test]
    fn one_wildcard_where_the_template_has_one_label() {
        let functions = [function("app", "f", json!({})), function("zoo", "g", json!({}))];
        let ways = ways(&functions, "{name}-{namespace}.{domain}", "example.com");
        assert_eq!(said(&ways.http1), ["*.example.com /"]);
    }

    #[test]
    fn a_host_that_no_ingress_can_have_keeps_no_other_from_being_written() {
        let long = function(&"n".repeat(63), &"f".repeat(45), json!({"protocol": "h2c"}));
        let functions = [function("app", "f", json!({"hosts": ["10.0.0.1", "a_b.org", "a.example.org"]})), long];
        let domain = format!("{}.example", ["d"; 80].join("."));
        let ways = ways(&functions, DEFAULT_TEMPLATE, &domain);
        assert_eq!(ways.http1.len(), 3, "{:?}", ways.http1);
        assert_eq!(ways.h2c, Hosts::new());
    }

    #[test]
    fn nothing_public_no_ways() {
        let hidden = function("hidden", "f", json!({"visibility": "Cluster"}));
        assert_eq!(ways(&[hidden], DEFAULT_TEMPLATE, "example.com"), Ways::default());
        assert_eq!(ways(&[], DEFAULT_TEMPLATE, "example.com"), Ways::default());
    }
}
