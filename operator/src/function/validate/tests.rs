use super::*;
use crate::function::build::fixtures::{function, hello};
use rstest::rstest;

fn with_template(template: Value) -> Function {
    let mut function = hello();
    function.spec.pod_template = Some(template);
    function
}

#[rstest]
#[case::unknown_part(json!({"sepc": {}}), "spec.podTemplate.sepc", "may contain metadata and spec")]
#[case::name(json!({"metadata": {"name": "x"}}), "spec.podTemplate.metadata.name", "labels and annotations")]
#[case::own_label(json!({"metadata": {"labels": {"rouse.dev/revision": "x"}}}), "spec.podTemplate.metadata.labels", "remove it")]
#[case::readiness(json!({"metadata": {"annotations": {"rouse.dev/readiness": "tcp"}}}), "spec.podTemplate.metadata.annotations", "remove it")]
#[case::deletion_cost(json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "1"}}}), "spec.podTemplate.metadata.annotations", "remove it")]
#[case::port(json!({"spec": {"containers": [{"name": "function", "ports": [{"containerPort": 8080}]}]}}), "spec.podTemplate.spec.containers[function].ports", "set spec.port instead")]
#[case::port_name(json!({"spec": {"containers": [{"name": "function", "ports": [{"name": "function", "containerPort": 9}]}]}}), "spec.podTemplate.spec.containers[function].ports", "set spec.port instead")]
#[case::image(json!({"spec": {"containers": [{"name": "function", "image": "x"}]}}), "spec.podTemplate.spec.containers[function].image", "set spec.image instead")]
#[case::port_variable(json!({"spec": {"containers": [{"name": "function", "env": [{"name": "PORT", "value": "1"}]}]}}), "spec.podTemplate.spec.containers[function].env", "set spec.port")]
#[case::nameless(json!({"spec": {"containers": [{"image": "x"}]}}), "spec.podTemplate.spec.containers", "needs a name")]
#[case::no_list(json!({"spec": {"containers": {}}}), "spec.podTemplate.spec.containers", "must be a list")]
#[case::restart(json!({"spec": {"restartPolicy": "Never"}}), "spec.podTemplate.spec.restartPolicy", "must be Always")]
#[case::too_quick(json!({"spec": {"terminationGracePeriodSeconds": 2}}), "spec.podTemplate.spec.terminationGracePeriodSeconds", "at least 3")]
#[case::host_network(json!({"spec": {"hostNetwork": true}}), "spec.podTemplate.spec.hostNetwork", "remove it")]
#[case::no_object(json!({"spec": []}), "spec.podTemplate.spec", "must be an object")]
fn rejects(#[case] template: Value, #[case] field: &str, #[case] fix: &str) {
    let function = with_template(template);
    let invalid = validate(&function).unwrap_err();
    assert_eq!(invalid.field, field);
    assert!(invalid.message.contains(fix), "{invalid}");
}

#[rstest]
#[case(json!({}))]
#[case(json!({"metadata": {"labels": {"team": "x"}}, "spec": {"nodeSelector": {"a": "b"}}}))]
#[case(json!({"spec": {"containers": [{"name": "sidecar", "image": "s", "ports": [{"containerPort": 9}]}]}}))]
#[case::labels_of_charts(json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/name": "x"}}}))]
#[case::port_of_metrics(json!({"spec": {"containers": [{"name": "function", "ports": [{"name": "metrics", "containerPort": 9090}]}]}}))]
fn accepts(#[case] template: Value) {
    validate(&with_template(template)).unwrap();
}

/// Clusters contain these hashes. If one changes, every Function gets a new revision on an upgrade.
#[test]
fn hashes_are_stable() {
    assert_eq!(validate(&hello()).unwrap().hash, hash(&json!({"image": "example.org/hello:1"})));
    assert_eq!(hash(&json!({"image": "example.org/hello:1"})), "26e4c4a63f5cfad64ffb");
    let full = function(json!({
        "image": "i", "command": ["/c"], "args": ["a"], "env": [{"name": "A", "value": "1"}],
        "envFrom": [{"configMapRef": {"name": "c"}}], "resources": {"limits": {"cpu": "1"}}, "port": 9000,
        "protocol": "h2c", "readiness": {"path": "/r"}, "podTemplate": {"spec": {"nodeSelector": {"z": "1", "a": "2"}}},
    }));
    assert_eq!(validate(&full).unwrap().hash, "c44f1562fa30429a63a0");
}

#[test]
fn the_hash_covers_only_the_container() {
    let base = validate(&hello()).unwrap().hash;
    let other = function(json!({
        "image": "example.org/hello:1", "scaling": {"min": 1}, "timeouts": {"coldStart": "5s"}, "queue": {"maxRequests": 1},
        "visibility": "Cluster", "hosts": ["a.example.org"], "traffic": [{"latest": true, "percent": 100}],
    }));
    assert_eq!(validate(&other).unwrap().hash, base);
    for changed in [
        json!({"image": "example.org/hello:2"}),
        json!({"image": "example.org/hello:1", "port": 8080}),
        json!({"image": "example.org/hello:1", "env": [{"name": "A", "value": ""}]}),
    ] {
        assert_ne!(validate(&function(changed.clone())).unwrap().hash, base, "{changed}");
    }
}

#[test]
fn the_order_of_keys_does_not_matter() {
    let a: Value = serde_json::from_str(r#"{"a":1,"b":{"c":[1,2],"d":"x"}}"#).unwrap();
    let b: Value = serde_json::from_str(r#"{"b":{"d":"x","c":[1,2]},"a":1}"#).unwrap();
    assert_eq!(hash(&a), hash(&b));
    assert_ne!(hash(&a), hash(&json!({"a": 1, "b": {"c": [2, 1], "d": "x"}})));
}
