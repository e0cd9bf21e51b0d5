use super::*;
use rouse_crds::{
    conditions::{HOST_CONFLICT, HOST_NOT_ALLOWED},
    hosts::{DEFAULT_TEMPLATE, EVERYONE, HostTemplate},
};
use serde_json::{Value, json};

fn function(id: &str, created: &str, generation: Option<i64>, spec: Value) -> Function {
    let (namespace, name) = id.split_once('/').unwrap();
    let mut whole = json!({
        "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
        "metadata": {
            "name": name, "namespace": namespace, "uid": id, "generation": generation, "creationTimestamp": created,
        },
    });
    whole["spec"] = spec;
    whole["spec"]["image"] = json!("i");
    serde_json::from_value(whole).unwrap()
}

fn hosts(id: &str, created: &str, hosts: &[&str]) -> Function {
    function(id, created, None, json!({"hosts": hosts}))
}

fn new(template: &str, allowed: &str) -> Claims {
    let template = HostTemplate::new(template, "example.com").unwrap();
    // Without rules, every namespace may claim every host.
    let allowed = if allowed.is_empty() { EVERYONE } else { allowed };
    Claims::new(Rules { template, allowed: allowed.parse().unwrap() })
}

fn key_of(id: &str) -> FunctionKey {
    let (namespace, name) = id.split_once('/').unwrap();
    FunctionKey::new(namespace, name)
}

const FIRST: &str = "2026-01-01T00:00:00Z";
const SECOND: &str = "2026-01-02T00:00:00Z";

#[test]
fn the_oldest_function_owns_a_host() {
    let old = hosts("ns/old", FIRST, &["a.example.org"]);
    let young = hosts("other/young", SECOND, &["a.example.org", "b.example.org"]);
    let (claims, key) = (new(DEFAULT_TEMPLATE, ""), key_of("other/young"));
    assert_eq!(claims.lost(&key, &young), [], "no claims yet");
    let (won, changed) = claims.replace([&young, &old].into_iter());
    assert_eq!(changed, [key_of("ns/old"), key.clone()].into());
    let won_by = |id: &str| -> Vec<_> { won[&key_of(id)].iter().map(ToString::to_string).collect() };
    assert!(won_by("ns/old").contains(&"a.example.org".to_owned()));
    assert!(!won_by("other/young").contains(&"a.example.org".to_owned()));
    let lost = claims.lost(&key, &young);
    assert_eq!((lost.len(), lost[0].reason), (1, HOST_CONFLICT));
    assert!(lost[0].message.contains("Host a.example.org belongs to Function ns/old"), "{lost:?}");
    assert_eq!(claims.lost(&key_of("ns/old"), &old), []);
    // The current spec counts, also before the next update of all claims.
    assert_eq!(claims.lost(&key, &hosts("other/young", SECOND, &["b.example.org"])), []);
    let (_, changed) = claims.replace([&young].into_iter());
    assert_eq!(changed, [key.clone()].into());
    assert_eq!(claims.lost(&key, &young), []);
}

#[test]
fn within_a_namespace_the_message_names_the_path() {
    let route = json!({"routes": [{"host": "shop.example.org", "path": "/api"}]});
    let old = function("ns/old", FIRST, None, route.clone());
    let young = function("ns/young", SECOND, None, route);
    let claims = new(DEFAULT_TEMPLATE, "");
    claims.replace([&young, &old].into_iter());
    let lost = claims.lost(&key_of("ns/young"), &young);
    assert!(lost[0].message.starts_with("Path /api of host shop.example.org belongs to Function ns/old"));
}

#[test]
fn a_host_that_is_not_allowed_has_its_own_reason() {
    let claims = new(DEFAULT_TEMPLATE, r#"[{"domains": ["*.example.org"], "namespaces": ["shop"]}]"#);
    let function = hosts("ns/f", FIRST, &["a.example.org"]);
    let lost = claims.lost(&key_of("ns/f"), &function);
    assert_eq!((lost.len(), lost[0].reason), (1, HOST_NOT_ALLOWED), "even before the first update");
    assert!(lost[0].message.contains("Namespace ns") && lost[0].message.contains("rule 1 "), "{lost:?}");
    let (won, changed) = claims.replace([&function].into_iter());
    assert_eq!(won[&key_of("ns/f")].len(), 1, "only the default host");
    assert_eq!(changed, [].into(), "no other Function claims its hosts");
}

#[test]
fn two_functions_with_the_same_default_host() {
    let claims = new("{name}-{namespace}.{domain}", "");
    let (old, young) = (hosts("c/a-b", FIRST, &[]), hosts("b-c/a", SECOND, &[]));
    claims.replace([&old, &young].into_iter());
    assert_eq!(claims.lost(&key_of("c/a-b"), &old), []);
    let lost = claims.lost(&key_of("b-c/a"), &young);
    assert!(lost[0].message.contains("a-b-c.example.com is also the default host of Function c/a-b"), "{lost:?}");
}

#[test]
fn only_a_change_of_a_spec_changes_claims() {
    let claims = new(DEFAULT_TEMPLATE, "");
    let old = function("ns/old", FIRST, Some(1), json!({"hosts": ["a.example.org"]}));
    let mut young = function("ns/young", SECOND, Some(1), json!({}));
    let (first, _) = claims.replace([&old, &young].into_iter());
    young.metadata.resource_version = Some("2".into());
    assert!(Arc::ptr_eq(&first, &claims.replace([&old, &young].into_iter()).0));
    young.metadata.generation = Some(2);
    young.spec.hosts = Some(vec!["a.example.org".into()]);
    assert_eq!(claims.replace([&old, &young].into_iter()).1, [key_of("ns/old"), key_of("ns/young")].into());
}

#[test]
fn a_function_created_between_two_updates_is_reported_when_its_host_becomes_free() {
    let claims = new(DEFAULT_TEMPLATE, "");
    let (old, young) = (hosts("ns/old", FIRST, &["a.example.org"]), hosts("ns/young", SECOND, &["a.example.org"]));
    claims.replace([&old].into_iter());
    assert_eq!(claims.lost(&key_of("ns/young"), &young).len(), 1, "reported before the next update");
    let (_, changed) = claims.replace([&young].into_iter());
    assert_eq!(changed, [key_of("ns/young")].into());
    assert_eq!(claims.lost(&key_of("ns/young"), &young), []);
}

#[test]
fn an_ingress_problem_affects_public_functions() {
    let claims = new(DEFAULT_TEMPLATE, "");
    let public = hosts("ns/public", FIRST, &[]);
    let hidden = function("ns/hidden", FIRST, None, json!({"visibility": "Cluster"}));
    let problem = LostHost { host: None, reason: "GatewayNotReady", message: "no Gateway".into() };
    let mut reported = public.clone();
    let condition = json!({"type": "Routable", "status": "False", "reason": "GatewayNotReady", "message": "no Gateway",
        "lastTransitionTime": FIRST});
    reported.status = Some(serde_json::from_value(json!({"conditions": [condition]})).unwrap());
    assert_eq!(claims.lost(&key_of("ns/public"), &reported), std::slice::from_ref(&problem), "until the first check");
    assert_eq!(claims.lost(&key_of("ns/public"), &public), []);
    assert!(claims.set_ingress_problem(Some(problem.clone())) && !claims.set_ingress_problem(Some(problem.clone())));
    claims.replace([&public, &hidden].into_iter());
    assert_eq!(claims.lost(&key_of("ns/public"), &public), [problem]);
    assert_eq!(claims.lost(&key_of("ns/hidden"), &hidden), []);
    assert!(claims.set_ingress_problem(None));
    assert_eq!(claims.lost(&key_of("ns/public"), &reported), []);
}
