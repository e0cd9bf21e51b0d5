mod model;

use super::*;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::{
    admit::{Entered, Target},
    context::Bounds,
    demand::Ledger,
    endpoints::Dialer,
    metrics::Metrics,
    route::Side,
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
    Directory::new(
        context,
        Arc::new(Table::new("cluster.local")),
        HostTemplate::new(rouse_crds::hosts::DEFAULT_TEMPLATE, "example.com").unwrap(),
    )
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
        "metadata": {"name": format!("{function}-pod"), "namespace": "a", "uid": format!("pod-of-{uid}"), "labels": {
            "rouse.dev/function": function, "rouse.dev/revision": format!("{function}-00001"), "rouse.dev/function-uid": uid,
        }},
        "status": {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    }))
    .unwrap()
}

fn owner(directory: &Directory, side: Side, host: &str) -> Option<String> {
    Some(directory.table.find(side, &Host::normalise(host).unwrap())?.id().to_string())
}

fn gate(directory: &Directory, host: &str) -> Arc<Gate> {
    directory.table.find(Side::Cluster, &Host::normalise(host).unwrap()).unwrap()
}

#[tokio::test]
async fn a_host_belongs_to_the_oldest_that_claims_it() {
    let mut directory = directory();
    let hosts = json!({"hosts": ["shop.example.org"]});
    directory.function_seen(&function("b", "young", "1", 20, &hosts));
    directory.function_seen(&function("a", "old", "2", 10, &hosts));
    directory.function_seen(&function("c", "younger", "3", 30, &hosts));
    assert_eq!(owner(&directory, Side::Public, "shop.example.org").unwrap(), "a/old");
    directory.function_seen(&function("a", "old", "2", 10, &json!({})));
    assert_eq!(owner(&directory, Side::Public, "shop.example.org").unwrap(), "b/young");
    directory.function_gone("b", "young");
    assert_eq!(owner(&directory, Side::Public, "shop.example.org").unwrap(), "c/younger");
    directory.function_gone("c", "younger");
    assert_eq!(owner(&directory, Side::Public, "shop.example.org"), None);
    assert_eq!(directory.claims.len(), 1, "only the one that is left with its own host");
    assert_eq!(owner(&directory, Side::Public, "old.a.example.com").unwrap(), "a/old");
}

#[tokio::test]
async fn what_only_the_cluster_may_call_has_no_public_host() {
    let mut directory = directory();
    directory.function_seen(&function("a", "f", "1", 0, &json!({"hosts": ["f.example.org"]})));
    directory.function_seen(&function("a", "f", "1", 0, &json!({"hosts": ["f.example.org"], "visibility": "Cluster"})));
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
async fn pods_may_be_seen_before_their_function() {
    let mut directory = directory();
    directory.pod_seen(&pod("f", "1"));
    directory.function_seen(&function("a", "f", "1", 0, &json!({})));
    assert!(matches!(gate(&directory, "f.a").enter(&Target::ANY, || 1), Ok(Entered::Now(_))));
    directory.pod_gone(&pod("f", "1"));
    assert!(matches!(gate(&directory, "f.a").enter(&Target::ANY, || 1), Ok(Entered::Later(_))));
    assert!(directory.pods.is_empty());
}

#[tokio::test]
async fn a_function_made_again_starts_anew() {
    let mut directory = directory();
    directory.function_seen(&function("a", "f", "1", 0, &json!({})));
    let Ok(Entered::Later(mut waiting)) = gate(&directory, "f.a").enter(&Target::ANY, || 1) else {
        panic!("there is no pod")
    };
    directory.function_seen(&function("a", "f", "2", 1, &json!({})));
    assert!(tokio::time::timeout(Duration::from_secs(5), waiting.wait()).await.unwrap().is_err());
    directory.pod_seen(&pod("f", "1"));
    assert!(
        matches!(gate(&directory, "f.a").enter(&Target::ANY, || 1), Ok(Entered::Later(_))),
        "that is a pod of the former"
    );
    directory.pod_seen(&pod("f", "2"));
    assert!(matches!(gate(&directory, "f.a").enter(&Target::ANY, || 1), Ok(Entered::Now(_))));
}

#[tokio::test]
async fn a_list_takes_away_what_it_does_not_show() {
    let mut directory = directory();
    for name in ["kept", "unreadable", "gone"] {
        directory.function_seen(&function("a", name, name, 0, &json!({})));
        directory.pod_seen(&pod(name, name));
    }
    directory.functions_listing();
    directory.function_seen(&function("a", "kept", "kept", 0, &json!({})));
    directory.function_unreadable("a", "unreadable");
    directory.functions_listed();
    assert_eq!(owner(&directory, Side::Public, "kept.a.example.com").unwrap(), "a/kept");
    assert_eq!(
        owner(&directory, Side::Public, "unreadable.a.example.com").unwrap(),
        "a/unreadable",
        "what was known stands"
    );
    assert_eq!(owner(&directory, Side::Public, "gone.a.example.com"), None);
    directory.pods_listing();
    directory.pod_seen(&pod("kept", "kept"));
    directory.pods_listed();
    assert!(matches!(gate(&directory, "kept.a").enter(&Target::ANY, || 1), Ok(Entered::Now(_))));
    assert!(matches!(gate(&directory, "unreadable.a").enter(&Target::ANY, || 1), Ok(Entered::Later(_))));
}

#[tokio::test]
async fn the_default_host_of_another_function_cannot_be_taken() {
    let mut directory = directory();
    let hosts = json!({"hosts": ["pay.shop.example.com", "fine.example.org"]});
    directory.function_seen(&function("a", "thief", "1", 10, &hosts));
    assert_eq!(owner(&directory, Side::Public, "pay.shop.example.com"), None, "before it exists");
    assert_eq!(owner(&directory, Side::Public, "fine.example.org").as_deref(), Some("a/thief"));
    directory.function_seen(&function("shop", "pay", "2", 20, &json!({})));
    assert_eq!(owner(&directory, Side::Public, "pay.shop.example.com").as_deref(), Some("shop/pay"));
}
