//! Rules and TLS settings of the shared Ingresses. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec, IngressTLS,
    ServiceBackendPort,
};
use rouse_crds::hosts::{DefaultHost, HostTemplate};

use super::{Tls, public_hosts::Hosts};

/// Name of the public port in both of the activators' Services.
const PUBLIC_PORT: &str = "public";

/// Builds the spec that routes `hosts` to `service`; `None` without hosts, because an Ingress needs a rule. Sorted, so
/// that the same hosts always produce the same object.
pub fn build(
    hosts: &Hosts,
    service: &str,
    class: Option<String>,
    tls: &Tls,
    template: &HostTemplate,
) -> Option<IngressSpec> {
    let rules: Vec<_> = hosts.iter().map(|(host, paths)| rule(host, paths, service)).collect();
    let custom = |host: &str| !host.starts_with("*.") && template.read(host) == DefaultHost::No;
    let secrets = tls.group(hosts.keys().map(|host| (host.as_str(), custom(host))));
    let tls: Vec<_> = secrets
        .into_iter()
        .map(|(secret, hosts)| IngressTLS {
            secret_name: Some(secret),
            hosts: Some(hosts.into_iter().map(str::to_owned).collect()),
        })
        .collect();
    (!rules.is_empty()).then(|| IngressSpec {
        ingress_class_name: class,
        rules: Some(rules),
        tls: (!tls.is_empty()).then_some(tls),
        ..IngressSpec::default()
    })
}

fn rule(host: &str, paths: &BTreeSet<String>, service: &str) -> IngressRule {
    let path = |path: &String| {
        let service = IngressServiceBackend {
            name: service.to_owned(),
            port: Some(ServiceBackendPort { name: Some(PUBLIC_PORT.to_owned()), number: None }),
        };
        let backend = IngressBackend { service: Some(service), resource: None };
        HTTPIngressPath { backend, path: Some(path.clone()), path_type: "Prefix".to_owned() }
    };
    let paths = paths.iter().map(path).collect();
    IngressRule { host: Some(host.to_owned()), http: Some(HTTPIngressRuleValue { paths }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::public_hosts::tests::{function, public_hosts};
    use rouse_crds::hosts::DEFAULT_TEMPLATE;
    use serde_json::json;

    fn spec(tls: &str) -> IngressSpec {
        let functions = [
            function("zoo", "z", json!({"hosts": ["z.example.org"]})),
            function("app", "a", json!({"hosts": ["a.example.org"]})),
            function("app", "b", json!({"protocol": "h2c", "routes": [{"host": "a.example.org", "path": "/rpc"}]})),
        ];
        let public = public_hosts(&functions, DEFAULT_TEMPLATE, "example.com");
        let template = HostTemplate::new(DEFAULT_TEMPLATE, "example.com").unwrap();
        build(&public.http1, "rouse-activator", Some("contour".into()), &Tls::parse(tls).unwrap(), &template).unwrap()
    }

    #[test]
    fn a_rule_for_each_host_and_path() {
        insta::assert_yaml_snapshot!(spec(""));
    }

    #[test]
    fn groups_hosts_by_tls_secret() {
        let tls = spec(r#"{"secretName": "w", "perHost": {"z.example.org": "z"}}"#).tls.unwrap();
        let secrets: Vec<_> = tls.into_iter().map(|t| (t.secret_name.unwrap(), t.hosts.unwrap().join(" "))).collect();
        let expected = [("w", "*.app.example.com *.zoo.example.com a.example.org"), ("z", "z.example.org")];
        assert_eq!(secrets, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn no_hosts_no_ingress() {
        let template = HostTemplate::new(DEFAULT_TEMPLATE, "example.com").unwrap();
        assert_eq!(build(&Hosts::new(), "s", None, &Tls::default(), &template), None);
    }
}
