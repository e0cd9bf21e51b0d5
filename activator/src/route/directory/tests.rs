mod model;

use super::*;
use std::time::Duration;

use futures::future::BoxFuture;
use rouse_crds::hosts::HostTemplate;
use serde_json::{Value, json};

use crate::{
    admit::{Admission, Bounds, Target},
    demand::Ledger,
    endpoints::Dialer,
    metrics::Metrics,
    route::{Host, RouteError},
    wake::{Scaler, WakeError},
};

#[derive(Debug)]
struct NoScaler;

impl Scaler for NoScaler {
    fn wake<'a>(&'a self, _: &'a str, _: &'a str, _: u32) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(std::future::pending())
    }
}

fn directory() -> Directory {
    let ledger = Ledger::new();
    let metrics = Metrics::new(ledger.clone());
    let context = Context::new(Arc::new(NoScaler), Bounds::generous(), Dialer::new(true), metrics, ledger);
    let template = HostTemplate::new(rouse_crds::hosts::DEFAULT_TEMPLATE, "example.com").unwrap();
    let allowed = json!([
        {"domains": ["y.example.org"], "namespaces": ["a"]},
        {"domains": ["x.example.org", "*.shop.example.org", "shop.example.org", "f.example.org", "fine.example.org", "*.example.com"], "namespaces": ["*"]},
    ]);
    let allowed = allowed.to_string().parse().unwrap();
    Directory::new(context, Arc::new(Table::new("cluster.local")), ownership::Rules { template, allowed })
}

fn function(namespace: &str, name: &str, uid: &str, second: i64, spec: &Value) -> Function {
    let mut whole = json!({"image": "x"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "rouse.dev/v1alpha1", "kind": "Function",
        "metadata": {"name": name, "namespace": namespace, "uid": uid, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
        "spec": whole, "status": {"traffic": [{"revision": format!("{name}-00001"), "percent": 100}]},
    }))
    .unwrap()
}

fn pod(function: &str, uid: &str) -> FunctionPod {
    serde_json::from_value(json!({
        "metadata": {
            "name": format!("{function}-pod"), "namespace": "a", "uid": format!("pod-of-{uid}"),
            "labels": {
                "rouse.dev/function": function, "rouse.dev/revision": format!("{function}-00001"),
                "rouse.dev/function-uid": uid, "pod-template-hash": "5d9f",
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{function}-00001-5d9f"), "uid": "u", "controller": true,
            }],
        },
        "status": {"podIP": format!("10.0.0.{}", function.bytes().map(u32::from).sum::<u32>() % 250), "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

fn owner(directory: &Directory, side: Side, host: &str) -> Option<String> {
    owner_of_path(directory, side, host, "/")
}

fn owner_of_path(directory: &Directory, side: Side, host: &str, path: &str) -> Option<String> {
    Some(find(directory, side, host, path).ok()?.breaker.id().to_string())
}

fn find(directory: &Directory, side: Side, host: &str, path: &str) -> Result<Route, RouteError> {
    let Ok(host) = Host::normalise(host) else { panic!("{host} is no host") };
    directory.table.find(side, &host, path)
}

fn breaker(directory: &Directory, host: &str) -> Arc<Breaker> {
    find(directory, Side::Cluster, host, "/").unwrap().breaker
}

#[tokio::test]
async fn the_oldest_claim_owns_a_host() {
    let mut directory = directory();
    let hosts = json!({"hosts": ["shop.example.org"]});
    directory.function_updated(&function("b", "young", "1", 20, &hosts));
    directory.function_updated(&function("a", "old", "2", 10, &hosts));
    directory.function_updated(&function("c", "younger", "3", 30, &hosts));
    assert_eq!(owner(&directory, Side::Public, "shop.example.org").unwrap(), "a/old");
    directory.function_updated(&function("a", "old", "2", 10, &json!({})));
    assert_eq!(owner(&directory, Side::Public, "shop.example.org").unwrap(), "b/young");
    directory.function_deleted("b", "young");
    assert_eq!(owner(&directory, Side::Public, "shop.example.org").unwrap(), "c/younger");
    directory.function_deleted("c", "younger");
    assert_eq!(owner(&directory, Side::Public, "shop.example.org"), None);
    assert_eq!(directory.public.len(), 1, "only the one that is left with its own host");
    assert_eq!(owner(&directory, Side::Public, "old.a.example.com").unwrap(), "a/old");
}

#[tokio::test]
async fn a_cluster_function_has_no_public_host() {
    let mut directory = directory();
    directory.function_updated(&function("a", "f", "1", 0, &json!({"hosts": ["f.example.org"]})));
    directory.function_updated(&function(
        "a",
        "f",
        "1",
        0,
        &json!({"hosts": ["f.example.org"], "visibility": "Cluster"}),
    ));
    for host in ["f.example.org", "f.a.example.com"] {
        assert_eq!((owner(&directory, Side::Public, host), owner(&directory, Side::Cluster, host)), (None, None));
    }
    for host in ["f.a", "f.a.svc", "f.a.svc.cluster.local"] {
        assert_eq!(
            (owner(&directory, Side::Public, host), owner(&directory, Side::Cluster, host)),
            (None, Some("a/f".into()))
        );
    }
}

#[tokio::test]
async fn pods_may_appear_before_their_function() {
    let mut directory = directory();
    directory.pod_updated(&pod("f", "1"));
    directory.function_updated(&function("a", "f", "1", 0, &json!({})));
    assert!(matches!(breaker(&directory, "f.a").admit(&Target::ANY, || 1), Ok(Admission::Granted(_))));
    directory.pod_deleted(&pod("f", "1").metadata);
    assert!(matches!(breaker(&directory, "f.a").admit(&Target::ANY, || 1), Ok(Admission::Queued(_))));
    assert!(directory.pods.is_empty());
}

#[tokio::test]
async fn a_recreated_function_starts_afresh() {
    let mut directory = directory();
    directory.function_updated(&function("a", "f", "1", 0, &json!({})));
    let Ok(Admission::Queued(mut waiting)) = breaker(&directory, "f.a").admit(&Target::ANY, || 1) else {
        panic!("there is no pod")
    };
    directory.function_updated(&function("a", "f", "2", 1, &json!({})));
    assert!(tokio::time::timeout(Duration::from_secs(5), waiting.wait()).await.unwrap().is_err());
    directory.pod_updated(&pod("f", "1"));
    assert!(
        matches!(breaker(&directory, "f.a").admit(&Target::ANY, || 1), Ok(Admission::Queued(_))),
        "that is a pod of the previous"
    );
    directory.pod_updated(&pod("f", "2"));
    assert!(matches!(breaker(&directory, "f.a").admit(&Target::ANY, || 1), Ok(Admission::Granted(_))));
}

#[tokio::test]
async fn a_relist_removes_what_it_does_not_return() {
    let mut directory = directory();
    for name in ["kept", "unreadable", "gone"] {
        directory.function_updated(&function("a", name, name, 0, &json!({})));
        directory.pod_updated(&pod(name, name));
    }
    directory.functions_relist_started();
    directory.function_updated(&function("a", "kept", "kept", 0, &json!({})));
    directory.function_unreadable("a", "unreadable");
    directory.functions_relist_finished();
    assert_eq!(owner(&directory, Side::Public, "kept.a.example.com").unwrap(), "a/kept");
    assert_eq!(
        owner(&directory, Side::Public, "unreadable.a.example.com").unwrap(),
        "a/unreadable",
        "what was known stands"
    );
    assert_eq!(owner(&directory, Side::Public, "gone.a.example.com"), None);
    directory.pods_relist_started();
    directory.pod_updated(&pod("kept", "kept"));
    directory.pods_relist_finished();
    assert!(matches!(breaker(&directory, "kept.a").admit(&Target::ANY, || 1), Ok(Admission::Granted(_))));
    assert!(matches!(breaker(&directory, "unreadable.a").admit(&Target::ANY, || 1), Ok(Admission::Queued(_))));
}

#[tokio::test]
async fn the_default_host_of_another_function_cannot_be_claimed() {
    let mut directory = directory();
    let hosts = json!({"hosts": ["pay.shop.example.com", "fine.example.org"]});
    directory.function_updated(&function("a", "thief", "1", 10, &hosts));
    assert_eq!(owner(&directory, Side::Public, "pay.shop.example.com"), None, "before it exists");
    assert_eq!(owner(&directory, Side::Public, "fine.example.org").as_deref(), Some("a/thief"));
    directory.function_updated(&function("shop", "pay", "2", 20, &json!({})));
    assert_eq!(owner(&directory, Side::Public, "pay.shop.example.com").as_deref(), Some("shop/pay"));
}

#[tokio::test]
async fn functions_of_a_namespace_share_a_host_by_paths_and_nobody_else_does() {
    let mut directory = directory();
    let all = json!({"hosts": ["shop.example.org"]});
    let cart = json!({"routes": [{"host": "shop.example.org", "path": "/cart"}]});
    directory.function_updated(&function("a", "web", "1", 10, &all));
    directory.function_updated(&function("a", "cart", "2", 20, &cart));
    directory.function_updated(&function(
        "b",
        "thief",
        "3",
        30,
        &json!({"routes": [{"host": "shop.example.org", "path": "/login"}]}),
    ));
    let of = |directory: &Directory, path: &str| owner_of_path(directory, Side::Public, "shop.example.org", path);
    assert_eq!(of(&directory, "/cart/1").as_deref(), Some("a/cart"));
    assert_eq!(of(&directory, "/carts").as_deref(), Some("a/web"));
    assert_eq!(of(&directory, "/login").as_deref(), Some("a/web"));
    assert_eq!(
        find(&directory, Side::Public, "shop.example.org", "/x/../cart").unwrap_err(),
        RouteError::Ambiguous(crate::route::Ambiguous)
    );
    // The default host belongs to its Function as a whole: no route applies to it.
    assert_eq!(owner_of_path(&directory, Side::Public, "cart.a.example.com", "/x").as_deref(), Some("a/cart"));
    assert_eq!(owner_of_path(&directory, Side::Cluster, "cart.a", "/x").as_deref(), Some("a/cart"));
    directory.function_deleted("a", "web");
    assert_eq!(of(&directory, "/cart/1").as_deref(), Some("a/cart"));
    assert_eq!(find(&directory, Side::Public, "shop.example.org", "/login").unwrap_err(), RouteError::Path);
    directory.function_deleted("a", "cart");
    assert_eq!(of(&directory, "/login").as_deref(), Some("b/thief"), "the other namespace has lost it");
    directory.function_deleted("b", "thief");
    assert_eq!(directory.table.len(), 0);
}

#[tokio::test]
async fn a_tag_host_routes_to_its_revision_and_yields_to_function_names() {
    let mut directory = directory();
    let spec =
        json!({"traffic": [{"latest": true, "percent": 100}, {"revision": "f-00001", "percent": 0, "tag": "old"}]});
    let mut tagged = function("a", "f", "1", 10, &spec);
    directory.function_updated(&tagged);
    assert_eq!(owner(&directory, Side::Public, "old-f.a.example.com"), None, "the tag has no revision");
    tagged.status.as_mut().unwrap().traffic = serde_json::from_value(
        json!([{"revision": "f-00002", "percent": 100}, {"revision": "f-00001", "percent": 0, "tag": "old"}]),
    )
    .unwrap();
    directory.function_updated(&tagged);
    for (side, host) in
        [(Side::Public, "old-f.a.example.com"), (Side::Cluster, "old-f.a"), (Side::Cluster, "old-f.a.svc")]
    {
        let route = find(&directory, side, host, "/x").unwrap();
        assert_eq!(
            (route.breaker.id().to_string().as_str(), route.revision.as_deref()),
            ("a/f", Some("f-00001")),
            "{host}"
        );
    }
    assert_eq!(find(&directory, Side::Public, "f.a.example.com", "/").unwrap().revision, None);
    // A Function of that name has precedence, although it is younger.
    directory.function_updated(&function("a", "old-f", "2", 20, &json!({})));
    for (side, host) in [(Side::Public, "old-f.a.example.com"), (Side::Cluster, "old-f.a")] {
        assert_eq!(find(&directory, side, host, "/").unwrap().revision, None);
        assert_eq!(owner(&directory, side, host).as_deref(), Some("a/old-f"));
    }
    directory.function_deleted("a", "old-f");
    assert_eq!(owner(&directory, Side::Public, "old-f.a.example.com").as_deref(), Some("a/f"));
}

#[tokio::test]
async fn a_namespace_claims_only_allowed_hosts() {
    let mut directory = directory();
    let hosts = json!({"hosts": ["y.example.org", "z.example.net"]});
    directory.function_updated(&function("b", "old", "1", 10, &hosts));
    assert_eq!(owner(&directory, Side::Public, "y.example.org"), None);
    directory.function_updated(&function("a", "young", "2", 20, &hosts));
    assert_eq!(owner(&directory, Side::Public, "y.example.org").as_deref(), Some("a/young"));
    assert_eq!(owner(&directory, Side::Public, "z.example.net"), None, "no rule has it");
}

/// Changes that are not about routes leave the table alone: it is not even copied.
#[tokio::test]
async fn unrelated_changes_do_not_touch_the_table() {
    let mut directory = directory();
    let spec = json!({"routes": [{"path": "/a", "methods": ["GET"]}]});
    directory.function_updated(&function("a", "f", "1", 10, &spec));
    let rules = || find(&directory, Side::Public, "f.a.example.com", "/a").unwrap().rules.unwrap();
    let before = rules();
    let mut spec = spec;
    spec["scaling"] = json!({"max": 3});
    directory.function_updated(&function("a", "f", "1", 10, &spec));
    let after = find(&directory, Side::Public, "f.a.example.com", "/a").unwrap().rules.unwrap();
    assert!(Arc::ptr_eq(&before, &after));
}

#[tokio::test]
async fn a_function_that_cannot_be_built_rejects_while_the_report_is_about_its_spec() {
    let mut directory = directory();
    let mut bad = function("a", "f", "u", 0, &json!({}));
    bad.metadata.generation = Some(3);
    let reported = |reason: &str, generation: i64| {
        json!({"conditions": [{"type": "RevisionReady", "status": "False", "reason": reason, "message": "why",
            "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    };
    let mut admitted = |status: Value| {
        bad.status = Some(serde_json::from_value(status).unwrap());
        directory.function_updated(&bad);
        breaker(&directory, "f.a").admit(&Target::ANY, || 1).is_ok()
    };
    assert!(admitted(json!({})));
    assert!(!admitted(reported("Invalid", 3)));
    assert!(!admitted(reported("NameConflict", 3)));
    assert!(admitted(reported("Invalid", 2)), "the spec has changed since");
    assert!(admitted(reported("ErrImagePull", 3)), "a pod can be started");
    let mut serving = reported("Invalid", 3);
    serving["traffic"] = json!([{"revision": "f-00001", "percent": 100}]);
    assert!(admitted(serving), "an earlier revision has the traffic");
}
