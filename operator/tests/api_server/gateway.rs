//! Ingress mode `gateway`: HTTPRoutes instead of Ingresses. The test plays the Gateway's controller.

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

/// Installs a CustomResourceDefinition of the Gateway API, with the limits of its schema.
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
        // The API group is protected: its CustomResourceDefinitions need this annotation.
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

/// Sets the status of every route, as the Gateway's controller.
async fn set_status(rig: &Rig, status: &str, reason: &str) {
    let condition = json!({"type": "Accepted", "status": status, "reason": reason, "message": "so it is", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let parent = json!({"parentRef": {"name": "edge", "namespace": rig.system}, "controllerName": "a/b", "conditions": [condition]});
    for name in names(rig).await {
        let patch = Patch::Merge(json!({"status": {"parents": [parent]}}));
        routes(rig).patch_status(&name, &PatchParams::default(), &patch).await.unwrap();
    }
}

#[tokio::test]
async fn routes_follow_the_functions_and_their_acceptance_is_reported() {
    let rig = Rig::new("gateway").await;
    let crds: Api<CustomResourceDefinition> = Api::all(rig.client.clone());
    for plural in ["httproutes", "gateways"] {
        drop(crds.delete(&format!("{plural}.gateway.networking.k8s.io"), &DeleteParams::default()).await);
    }
    // An Ingress of the previous mode.
    let labels = json!({"app.kubernetes.io/managed-by": "rouse"});
    let left: Ingress = serde_json::from_value(json!({
        "metadata": {"name": rig.ingress(), "labels": labels}, "spec": {"rules": [{"host": "a.example.org"}]},
    }))
    .unwrap();
    rig.ingresses().create(&PostParams::default(), &left).await.unwrap();

    let metrics = Metrics::default();
    let client = client_for(config().await, &metrics).unwrap();
    let args = Args { ingress_mode: IngressMode::Gateway, gateway_name: "edge".into(), ..rig.args("operator") };
    let operator = rig.operator_of(args, client, metrics);
    let spec = |hosts: &[String]| json!({"image": "i", "scaling": {"initial": 0}, "hosts": hosts});
    rig.apply("a", &spec(&["shop.example.org".into()])).await;
    // A cluster without the Gateway API: the problem is reported, and everything else works.
    rig.function("a", "has its revision", |f| f.status.as_ref().is_some_and(|s| s.latest_revision.is_some())).await;
    let not_ready = |f: &rouse_crds::Function| condition(f, "Routable") == ("False".into(), "GatewayNotReady".into());
    let a = rig.function("a", "reports the missing Gateway API", not_ready).await;
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
    rig.function("a", "reports the missing Gateway", no_gateway).await;
    assert!(
        rig.ingresses().get_opt(&rig.ingress()).await.unwrap().is_some(),
        "the Ingress is deleted before the routes are accepted"
    );

    let edge: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "edge"}, "spec": {},
    }))
    .unwrap();
    gateways(&rig).create(&PostParams::default(), &edge).await.unwrap();
    set_status(&rig, "False", "NotAllowedByListeners").await;
    let refused = |f: &rouse_crds::Function| message(f, "Routable").contains("NotAllowedByListeners: so it is");
    rig.function("a", "reports the rejection", refused).await;
    set_status(&rig, "True", "Accepted").await;
    rig.function("a", "is routed", |f| condition(f, "Routable").0 == "True").await;
    eventually("the Ingress of the previous mode is deleted", async || {
        rig.ingresses().get_opt(&rig.ingress()).await.unwrap().is_none()
    })
    .await;

    // More hosts than fit one route; the existing hosts stay in their route.
    let many: Vec<_> = (0..20).map(|n| format!("h{n:02}.example.org")).collect();
    rig.apply("b", &spec(&many)).await;
    eventually("a second route", async || names(&rig).await.len() == 2).await;
    let version = |name: &'static str| {
        let routes = routes(&rig);
        async move { routes.get(name).await.unwrap().resource_version() }
    };
    let both = ["rouse-0", "rouse-1"];
    assert_eq!(names(&rig).await, both.map(String::from).into());
    set_status(&rig, "True", "Accepted").await;
    let first = routes(&rig).get("rouse-0").await.unwrap();
    assert_eq!(first.spec.hostnames.len(), 16);
    assert!(first.spec.hostnames.contains(&"shop.example.org".to_owned()));
    // Removing a host of the second route writes only the second route.
    let before = version("rouse-0").await;
    rig.apply("b", &spec(&many[..19])).await;
    wait_for(&routes(&rig), "rouse-1", "has one host less", |r: &HTTPRoute| r.spec.hostnames.len() == 5).await;
    assert_eq!(version("rouse-0").await, before);

    // Without a change nothing is written. A modified route is repaired.
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
