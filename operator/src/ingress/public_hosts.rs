//! Hosts and paths to route to the activators, by protocol. Pure, and independent of the kind of object.

use std::collections::{BTreeMap, BTreeSet};

use rouse_crds::{
    Function,
    function::{Protocol, Visibility},
    hosts::{HostTemplate, ownership::Form},
};

use crate::{cluster::key::FunctionKey, hosts::Won};

/// Hosts with their path prefixes. A host may be a wildcard.
pub type Hosts = BTreeMap<String, BTreeSet<String>>;

/// Hosts to route to the activators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicHosts {
    /// Hosts with HTTP/1.1, for everything except gRPC.
    pub http1: Hosts,
    /// Hosts with h2c.
    pub h2c: Hosts,
}

/// Public hosts of each namespace, and under the empty name those that namespaces share: the wildcard of a template with the
/// namespace in the first label.
pub type ByNamespace = BTreeMap<String, PublicHosts>;

/// Builds the hosts of each namespace. A custom host belongs to one namespace, so no host is in two.
pub fn by_namespace<'a>(
    functions: impl Iterator<Item = &'a Function>,
    won: &Won,
    template: &HostTemplate,
) -> ByNamespace {
    let mut namespaces: BTreeMap<&str, Vec<&Function>> = BTreeMap::new();
    for function in functions {
        namespaces.entry(function.metadata.namespace.as_deref().unwrap_or_default()).or_default().push(function);
    }
    let mut all = ByNamespace::new();
    for (namespace, functions) in namespaces {
        let mut public = build(functions.into_iter(), won, template);
        if template.is_ambiguous() {
            let wildcard = template.wildcard(namespace);
            if let Some(paths) = public.http1.remove(&wildcard) {
                all.entry(String::new()).or_default().http1.insert(wildcard, paths);
            }
        }
        if public != PublicHosts::default() {
            all.insert(namespace.to_owned(), public);
        }
    }
    all
}

/// Builds one wildcard for each namespace with a public Function (a wildcard of an Ingress spans one label), and every
/// custom host that a Function owns. All hosts of an h2c Function are listed under h2c, including the default host,
/// because an exact host has precedence over a wildcard. Activators route by path, so a host has the path `/`, unless
/// its Functions use both protocols.
pub fn build<'a>(functions: impl Iterator<Item = &'a Function>, won: &Won, template: &HostTemplate) -> PublicHosts {
    let mut public = PublicHosts::default();
    for function in functions.filter(|f| f.spec.visibility() == Visibility::Public) {
        let Some(key) = FunctionKey::of(function) else { continue };
        // With some templates, all namespaces share one wildcard.
        whole(&mut public.http1, template.wildcard(&key.namespace));
        let is_h2c = function.spec.protocol() == Protocol::H2c;
        for claim in won.get(&key).into_iter().flatten() {
            let hosts = match (is_h2c, claim.form) {
                (true, _) => &mut public.h2c,
                (false, Form::Custom) => &mut public.http1,
                (false, Form::Default | Form::Tag) => continue,
            };
            if is_valid(&claim.host) {
                hosts.entry(claim.host.to_string()).or_default().insert(claim.path.to_string());
            }
        }
    }
    let PublicHosts { http1, h2c } = &mut public;
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
    public
}

fn whole(hosts: &mut Hosts, host: String) {
    hosts.entry(host).or_insert_with(root);
}

fn root() -> BTreeSet<String> {
    BTreeSet::from(["/".to_owned()])
}

/// Returns whether the API server accepts a host in an Ingress or HTTPRoute. A single invalid host would block the
/// whole object, and so the changes of all Functions. The schema rejects invalid hosts, but a stored Function may be
/// older than the schema.
fn is_valid(host: &str) -> bool {
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

    pub(in crate::ingress) fn public_hosts(functions: &[Function], template: &str, domain: &str) -> PublicHosts {
        let template = HostTemplate::new(template, domain).unwrap();
        let rules = Rules { template: template.clone(), allowed: rouse_crds::hosts::EVERYONE.parse().unwrap() };
        let (won, _) = Claims::new(rules).replace(functions.iter());
        let public = build(functions.iter(), &won, &template);
        assert_eq!(public, build(functions.iter().rev(), &won, &template), "the order must not matter");
        public
    }

    fn lines(hosts: &Hosts) -> Vec<String> {
        hosts.iter().map(|(host, paths)| paths.iter().fold(host.clone(), |all, path| all + " " + path)).collect()
    }

    #[test]
    fn wildcards_of_namespaces_and_owned_hosts() {
        let functions = [
            function("zoo", "z", json!({"hosts": ["z.example.org", "taken.example.org"]})),
            function("app", "a", json!({"hosts": ["taken.example.org"]})),
            function("app", "b", json!({"routes": [{"host": "a.example.org", "path": "/api"}, {"path": "/x"}]})),
            function("hidden", "h", json!({"visibility": "Cluster", "hosts": ["h.example.org"]})),
        ];
        let public = public_hosts(&functions, DEFAULT_TEMPLATE, "example.com");
        let expected =
            ["*.app.example.com /", "*.zoo.example.com /", "a.example.org /", "taken.example.org /", "z.example.org /"];
        assert_eq!((lines(&public.http1), public.h2c), (expected.map(String::from).into(), Hosts::new()));
    }

    #[test]
    fn all_hosts_of_an_h2c_function_use_h2c() {
        let tag = json!([{"latest": true, "percent": 100, "tag": "t"}]);
        let functions = [
            function("app", "f", json!({"protocol": "h2c", "hosts": ["g.example.org"], "traffic": tag})),
            function("app", "h", json!({"protocol": "h2c", "visibility": "Cluster"})),
        ];
        let public = public_hosts(&functions, DEFAULT_TEMPLATE, "example.com");
        assert_eq!(lines(&public.http1), ["*.app.example.com /"]);
        assert_eq!(lines(&public.h2c), ["f.app.example.com /", "g.example.org /", "t-f.app.example.com /"]);
    }

    #[test]
    fn a_host_with_both_protocols_is_split_by_path() {
        let functions = [
            function("app", "web", json!({"hosts": ["a.example.org"]})),
            function("app", "rpc", json!({"protocol": "h2c", "routes": [{"host": "a.example.org", "path": "/rpc"}]})),
        ];
        let public = public_hosts(&functions, DEFAULT_TEMPLATE, "example.com");
        assert_eq!(lines(&public.http1), ["*.app.example.com /", "a.example.org /"]);
        assert_eq!(lines(&public.h2c), ["a.example.org /rpc", "rpc.app.example.com /"]);
    }

    #[test]
    fn a_template_with_a_single_label_has_one_wildcard() {
        let functions = [function("app", "f", json!({})), function("zoo", "g", json!({}))];
        let public = public_hosts(&functions, "{name}-{namespace}.{domain}", "example.com");
        assert_eq!(lines(&public.http1), ["*.example.com /"]);
    }

    #[test]
    fn each_host_is_of_one_namespace_or_shared() {
        let functions = [
            function("app", "f", json!({"hosts": ["a.example.org"]})),
            function("zoo", "g", json!({"protocol": "h2c", "hosts": ["g.example.org"]})),
            function("hidden", "h", json!({"visibility": "Cluster"})),
        ];
        for template in [DEFAULT_TEMPLATE, "{name}-{namespace}.{domain}"] {
            let template = HostTemplate::new(template, "example.com").unwrap();
            let rules = Rules { template: template.clone(), allowed: rouse_crds::hosts::EVERYONE.parse().unwrap() };
            let (won, _) = Claims::new(rules).replace(functions.iter());
            let all = by_namespace(functions.iter(), &won, &template);
            let mut united = PublicHosts::default();
            for public in all.values().cloned() {
                united.http1.extend(public.http1);
                united.h2c.extend(public.h2c);
            }
            assert_eq!(united, build(functions.iter(), &won, &template));
            let names: Vec<_> = all.keys().map(String::as_str).collect();
            assert_eq!(names, if template.is_ambiguous() { vec!["", "app", "zoo"] } else { vec!["app", "zoo"] });
        }
    }

    #[test]
    fn an_invalid_host_is_left_out() {
        let long = function(&"n".repeat(63), &"f".repeat(45), json!({"protocol": "h2c"}));
        let functions = [function("app", "f", json!({"hosts": ["10.0.0.1", "a_b.org", "a.example.org"]})), long];
        let domain = format!("{}.example", ["d"; 80].join("."));
        let public = public_hosts(&functions, DEFAULT_TEMPLATE, &domain);
        assert_eq!(public.http1.len(), 3, "{:?}", public.http1);
        assert_eq!(public.h2c, Hosts::new());
    }

    #[test]
    fn no_public_functions_no_hosts() {
        let hidden = function("hidden", "f", json!({"visibility": "Cluster"}));
        assert_eq!(public_hosts(&[hidden], DEFAULT_TEMPLATE, "example.com"), PublicHosts::default());
        assert_eq!(public_hosts(&[], DEFAULT_TEMPLATE, "example.com"), PublicHosts::default());
    }
}
