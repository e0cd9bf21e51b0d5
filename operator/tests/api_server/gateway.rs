//! HTTPRoutes in place of Ingresses. The test plays the Gateway's controller.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::networking::v1::Ingress, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    discovery::ApiResource,
    runtime::{conditions, wait::await_condition},
};
use rouse_operator::{
    args::{Args, IngressMode},
    cluster::{client::client_for, httproute::HTTPRoute},
    telemetry::metrics::Metrics,
};
use serde_json::json;
use tokio::time::timeout;

use crate::rig::{LIMIT, Rig, condition, config, eventually, message, wait_for};

/// A resource of the Gateway API, with as much of its schema as limits what is written.
async fn install(rig: &Rig, kind: &str, plural: &str) {
    let limited = json!({"type": "array", "maxItems": 16, "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let hostnames = json!({"type": "array", "maxItems": 16, "items": {"type": "string", "maxLength": 253}});
    let spec = json!({
        "type": "object", "x-kubernetes-preserve-unknown-fields": true,
        "properties": {"hostnames": hostnames, "rules": limited},
    });
    let name = format!("{plural}.gateway.networking.k8s.io");
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        // The group is protected: its resources say which proposal they come from.
        "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api/pull/2997"}},
        "spec": {
            "group": "gateway.networking.k8s.io", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": spec, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                }}},
            }],
        },
    });
    let crds: Api<CustomResourceDefinition> = Api::all(rig.client.clone());
    crds.patch(&name, &PatchParams::apply("rouse-test").force(), &Patch::Apply(&crd)).await.unwrap();
    let established = await_condition(crds, &name, conditions::is_crd_established());
    timeout(LIMIT, established).await.expect("the CRD is not established").unwrap();
}

fn gateways(rig: &Rig) -> Api<DynamicObject> {
    let resource = ApiResource {
        group: "gateway.networking.k8s.io".into(),
        version: "v1".into(),
        api_version: "gateway.networking.k8s.io/v1".into(),
        kind: "Gateway".into(),
        plural: "gateways".into(),
    };
    Api::namespaced_with(rig.client.clone(), &rig.system, &resource)
}

fn routes(rig: &Rig) -> Api<HTTPRoute> {
    Api::namespaced(rig.client.clone(), &rig.system)
}

async fn names(rig: &Rig) -> BTreeSet<String> {
    routes(rig).list(&ListParams::default()).await.unwrap().iter().map(kube::ResourceExt::name_any).collect()
}

/// What the Gateway's controller says of every route.
async fn say(rig: &Rig, status: &str, reason: &str) {
    let condition = json!({"type": "Accepted", "status": status, "reason": reason, "message": "so it is", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let parent = json!({"parentRef": {"name": "edge", "namespace": rig.system}, "controllerName": "a/b", "conditions": [condition]});
    for name in names(rig).await {
        let patch = Patch::Merge(json!({"status": {"parents": [parent]}}));
        routes(rig).patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
    }
}

#[tokio::test]
async fn routes_follow_the_functions_and_what_their_gateway_says_is_told() {
    let rig = Rig::new("gateway").await;
    let crds: Api<CustomResourceDefinition> = Api::all(rig.client.clone());
    for plural in ["httproutes", "gateways"] {
        drop(crds.delete(&format!("{plural}.gateway.networking.k8s.io"), &DeleteParams::default()).await);
    }
    // What another mode has left.
    let labels = json!({"app.kubernetes.io/managed-by": "rouse"});
    let left: Ingress = serde_json::from_value(json!({
        "metadata": {"name": "rouse", "labels": labels}, "spec": {"rules": [{"host": "a.example.org"}]},
    }))
    .unwrap();
    rig.ingresses().create(&PostParams::default(), &left).await.unwrap();

    let metrics = Metrics::default();
    let client = client_for(config().await, &metrics).unwrap();
    let args = Args { ingress_mode: IngressMode::Gateway, gateway_name: "edge".into(), ..rig.args("operator") };
    let operator = rig.operator_of(args, client, metrics);
    let spec = |hosts: &[String]| json!({"image": "i", "scaling": {"initial": 0}, "hosts": hosts});
    rig.apply("a", &spec(&["shop.example.org".into()])).await;
    // A cluster without the Gateway API: that is said, and everything else goes on.
    rig.function("a", "has its revision", |f| f.status.as_ref().is_some_and(|s| s.latest_revision.is_some())).await;
    let told = |f: &rouse_crds::Function| condition(f, "Routable") == ("False".into(), "GatewayNotReady".into());
    let a = rig.function("a", "is told that there is no Gateway API", told).await;
    assert!(message(&a, "Routable").contains("installed"), "{}", message(&a, "Routable"));

    install(&rig, "HTTPRoute", "httproutes").await;
    install(&rig, "Gateway", "gateways").await;
    let wildcard = format!("*.{}.fn.test", rig.namespace);
    let first = wait_for(&routes(&rig), "rouse-0", "has a wildcard and a host", |r: &HTTPRoute| {
        r.spec.hostnames == [wildcard.clone(), "shop.example.org".to_owned()]
    })
    .await;
    assert_eq!(first.spec.rules[0].backend_refs[0].name, "rouse-activator");
    let no_gateway = |f: &rouse_crds::Function| message(f, "Routable").contains("edge does not exist");
    rig.function("a", "is told that there is no Gateway", no_gateway).await;
    assert!(rig.ingresses().get_opt("rouse").await.unwrap().is_some(), "the old way goes before there is a new one");

    let edge: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge"}, "spec": {},
    }))
    .unwrap();
    gateways(&rig).create(&PostParams::default(), &edge).await.unwrap();
    say(&rig, "False", "NotAllowedByListeners").await;
    let refused = |f: &rouse_crds::Function| message(f, "Routable").contains("NotAllowedByListeners: so it is");
    rig.function("a", "is told what the Gateway says", refused).await;
    say(&rig, "True", "Accepted").await;
    rig.function("a", "is routed", |f| condition(f, "Routable").0 == "True").await;
    eventually("what the other mode has left is gone", async || {
        rig.ingresses().get_opt("rouse").await.unwrap().is_none()
    })
    .await;

    // More hosts than one route takes; those that were there stay where they are.
    let many: Vec<_> = (0..20).map(|n| format!("h{n:02}.example.org")).collect();
    rig.apply("b", &spec(&many)).await;
    eventually("a second route", async || names(&rig).await.len() == 2).await;
    let version = |name: &'static str| {
        let routes = routes(&rig);
        async move { routes.get(name).await.unwrap().resource_version() }
    };
    let both = ["rouse-0", "rouse-1"];
    assert_eq!(names(&rig).await, both.map(String::from).into());
    say(&rig, "True", "Accepted").await;
    let first = routes(&rig).get("rouse-0").await.unwrap();
    assert_eq!(first.spec.hostnames.len(), 16);
    assert!(first.spec.hostnames.contains(&"shop.example.org".to_owned()));
    // One host less in the second is a write of the second.
    let before = version("rouse-0").await;
    rig.apply("b", &spec(&many[..19])).await;
    wait_for(&routes(&rig), "rouse-1", "has one host less", |r: &HTTPRoute| r.spec.hostnames.len() == 5).await;
    assert_eq!(version("rouse-0").await, before);

    // Nothing changes: nothing is written. A route that somebody has changed is put right.
    let writes = operator.writes();
    rig.apply("b", &spec(&many[..19])).await;
    let broken = Patch::Merge(json!({"spec": {"hostnames": ["x.example.org"]}}));
    routes(&rig).patch("rouse-1", &PatchParams::default(), &broken).await.unwrap();
    wait_for(&routes(&rig), "rouse-1", "is put right", |r: &HTTPRoute| r.spec.hostnames.len() == 5).await;
    assert_ne!(operator.writes(), writes);
    assert_eq!(version("rouse-0").await, before);

    rig.functions().delete("b", &DeleteParams::default()).await.unwrap();
    eventually("one route", async || names(&rig).await.len() == 1).await;
    for plural in ["httproutes", "gateways"] {
        crds.delete(&format!("{plural}.gateway.networking.k8s.io"), &DeleteParams::default()).await.unwrap();
    }
    rig.end(Some(operator)).await;
}
