//! Child objects of a Function: creation, repair and ownership.

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    core::v1::Service,
    networking::v1::Ingress,
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use rouse_operator::ingress::h2c_name;
use serde_json::{Value, json};

use crate::rig::{Rig, condition, eventually, message, wait_for};

fn hello() -> Value {
    json!({"image": "example.org/hello:1", "scaling": {"min": 1}})
}

#[tokio::test]
async fn creates_all_objects_once() {
    let rig = Rig::new("appear").await;
    let operator = rig.operator().await;
    rig.apply("hello", &hello()).await;
    let function = rig.function("hello", "has a first status", |f| f.status.is_some()).await;
    assert_eq!(condition(&function, "Ready"), ("Unknown".into(), "Starting".into()));
    let status = function.status.clone().unwrap();
    assert_eq!(status.traffic[0].revision, "hello-00001");
    assert_eq!(status.url.unwrap(), format!("http://hello.{}.fn.test", rig.namespace));
    let deployment: Deployment = rig.object("hello-00001", "exists", |_| true).await;
    let owner = &deployment.owner_references()[0];
    assert_eq!((Some(&owner.uid), owner.controller), (function.uid().as_ref(), Some(true)));
    let service: Service = rig.object("hello", "exists", |_| true).await;
    let target = service.spec.unwrap().external_name.unwrap();
    assert_eq!(target, format!("rouse-activator.{}.svc.cluster.local", rig.system));
    let ingress = wait_for(&rig.ingresses(), &rig.ingress(), "exists", |_: &Ingress| true).await;
    let host = ingress.spec.unwrap().rules.unwrap()[0].host.clone();
    assert_eq!(host, Some(format!("*.{}.fn.test", rig.namespace)));

    rig.pods_ready("hello-00001", 1).await;
    rig.function("hello", "is ready", |f| condition(f, "Ready").0 == "True").await;
    operator.stop().await;

    let before = rig.versions().await;
    let again = rig.operator().await;
    eventually("the second operator has reconciled the Function", async || {
        again.metric(r#"rouse_operator_reconciles_total{result="success"}"#) >= 1.0
    })
    .await;
    // A change without effect triggers another reconcile, after which the work of the first one is done.
    let label = json!({"metadata": {"annotations": {"note": "x"}}});
    rig.functions().patch("hello", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    eventually("it has reconciled again", async || {
        again.metric(r#"rouse_operator_reconciles_total{result="success"}"#) >= 2.0
    })
    .await;
    assert_eq!(again.writes(), Vec::<String>::new());
    let after = rig.versions().await;
    let children = |all: &[String]| all.iter().filter(|v| !v.starts_with("Function ")).cloned().collect::<Vec<_>>();
    assert_eq!(children(&after), children(&before));
    rig.end(Some(again)).await;
}

#[tokio::test]
async fn recreates_deleted_objects() {
    let rig = Rig::new("return").await;
    let operator = rig.operator().await;
    rig.apply("hello", &hello()).await;
    rig.function("hello", "has a first status", |f| f.status.is_some()).await;

    let revisions: Api<ControllerRevision> = rig.api();
    let old = rig.object("hello-00001", "exists", |_: &ControllerRevision| true).await.uid();
    revisions.delete("hello-00001", &DeleteParams::default()).await.unwrap();
    rig.object("hello-00001", "is recreated", |r: &ControllerRevision| r.uid() != old).await;

    let old = rig.object("hello-00001", "exists", |_: &Deployment| true).await.uid();
    rig.deployments().delete("hello-00001", &DeleteParams::default()).await.unwrap();
    rig.object("hello-00001", "is recreated", |d: &Deployment| d.uid() != old).await;

    let services: Api<Service> = rig.api();
    let old = rig.object("hello", "exists", |_: &Service| true).await.uid();
    services.delete("hello", &DeleteParams::default()).await.unwrap();
    rig.object("hello", "is recreated", |s: &Service| s.uid() != old).await;

    let old = wait_for(&rig.ingresses(), &rig.ingress(), "exists", |_: &Ingress| true).await.uid();
    rig.ingresses().delete(&rig.ingress(), &DeleteParams::default()).await.unwrap();
    wait_for(&rig.ingresses(), &rig.ingress(), "is recreated", |i: &Ingress| i.uid() != old).await;
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn repairs_modified_objects_except_their_replicas() {
    let rig = Rig::new("repair").await;
    let operator = rig.operator().await;
    rig.apply("hello", &json!({"image": "example.org/hello:1", "scaling": {"min": 0, "initial": 0}})).await;
    rig.object("hello-00001", "exists", |_: &Deployment| true).await;
    let edit = json!({"spec": {"replicas": 2, "template": {"spec": {"containers": [
        {"name": "function", "image": "evil", "env": [{"name": "EXTRA", "value": "1"}]},
    ]}}}});
    rig.deployments().patch("hello-00001", &PatchParams::default(), &Patch::Strategic(edit)).await.unwrap();
    let container = |d: &Deployment| d.spec.clone().unwrap().template.spec.unwrap().containers[0].clone();
    let image = |d: &Deployment| container(d).image;
    let repaired: Deployment =
        rig.object("hello-00001", "has its image", |d| image(d).as_deref() == Some("example.org/hello:1")).await;
    assert_eq!(container(&repaired).env.unwrap().len(), 1, "an element that was added to a list is removed");
    assert_eq!(
        repaired.spec.unwrap().replicas,
        Some(2),
        "the reconciler does not write the count, and without an activator the scaler does not lower it"
    );

    let services: Api<Service> = rig.api();
    let edit =
        json!({"metadata": {"labels": {"rouse.dev/function": null}}, "spec": {"externalName": "evil.example.org"}});
    services.patch("hello", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    let back = |s: &Service| {
        let named =
            s.spec.as_ref().and_then(|s| s.external_name.as_ref()).is_some_and(|n| n.starts_with("rouse-activator."));
        named && s.labels().contains_key("rouse.dev/function")
    };
    rig.object("hello", "is an alias of the activators' Service and has its labels", back).await;

    let edit = json!({"spec": {"rules": [{"host": "evil.example.org"}]}});
    rig.ingresses().patch(&rig.ingress(), &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    let own = format!("*.{}.fn.test", rig.namespace);
    let back = |i: &Ingress| i.spec.as_ref().unwrap().rules.as_ref().unwrap()[0].host.as_ref() == Some(&own);
    wait_for(&rig.ingresses(), &rig.ingress(), "has its rules", back).await;
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn never_adopts_objects_of_other_owners() {
    let rig = Rig::new("foreign").await;
    let operator = rig.operator().await;
    let foreign: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "taken-00001"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "other"}]},
        }},
    }))
    .unwrap();
    let foreign = rig.deployments().create(&PostParams::default(), &foreign).await.unwrap();
    rig.apply("taken", &hello()).await;
    let function =
        rig.function("taken", "reports the conflict", |f| condition(f, "RevisionReady").1 == "NameConflict").await;
    assert!(message(&function, "Ready").contains("Deployment taken-00001"), "{}", message(&function, "Ready"));
    assert_eq!(rig.deployments().get("taken-00001").await.unwrap(), foreign);

    let service: Service = serde_json::from_value(
        json!({"metadata": {"name": "served"}, "spec": {"type": "ExternalName", "externalName": "a.b"}}),
    )
    .unwrap();
    let api: Api<Service> = rig.api();
    let service = api.create(&PostParams::default(), &service).await.unwrap();
    rig.apply("served", &hello()).await;
    let function =
        rig.function("served", "reports the conflict", |f| condition(f, "Routable").1 == "NameConflict").await;
    assert!(message(&function, "Routable").contains("Service served"));
    assert_eq!(api.get("served").await.unwrap(), service);
    rig.object("served-00001", "is created nevertheless", |_: &Deployment| true).await;
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn a_recreated_function_gets_its_own_objects() {
    let rig = Rig::new("recreated").await;
    let operator = rig.operator().await;
    let first = rig.apply("hello", &hello()).await;
    rig.function("hello", "has a first status", |f| f.status.is_some()).await;
    // No garbage collector is running, so the objects of the first Function still exist.
    rig.functions().delete("hello", &DeleteParams::default()).await.unwrap();
    let second = rig.apply("hello", &json!({"image": "example.org/hello:2"})).await;
    assert_ne!(first.uid(), second.uid());
    let owned = |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        meta.owner_references.iter().flatten().any(|o| Some(&o.uid) == second.uid().as_ref())
    };
    rig.object("hello-00001", "belongs to the second", |r: &ControllerRevision| owned(r.meta())).await;
    let deployment = rig.object("hello-00001", "belongs to the second", |d: &Deployment| owned(d.meta())).await;
    assert_eq!(
        deployment.spec.unwrap().template.spec.unwrap().containers[0].image.as_deref(),
        Some("example.org/hello:2")
    );
    rig.object("hello", "belongs to the second", |s: &Service| owned(s.meta())).await;
    rig.function("hello", "has a first status", |f| f.status.is_some()).await;
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn the_ingress_follows_the_functions() {
    let rig = Rig::new("ingress").await;
    let operator = rig.operator().await;
    rig.apply("a", &json!({"image": "i", "scaling": {"initial": 0}, "hosts": ["shop.example.org"]})).await;
    let hosts = |i: &Ingress| {
        let rules = i.spec.as_ref().and_then(|s| s.rules.clone()).unwrap_or_default();
        rules.into_iter().filter_map(|r| r.host).collect::<Vec<_>>()
    };
    let wildcard = format!("*.{}.fn.test", rig.namespace);
    let both = [wildcard.clone(), "shop.example.org".to_owned()];
    wait_for(&rig.ingresses(), &rig.ingress(), "has a wildcard and a host", |i| hosts(i) == both).await;

    // Another Function claims the host: the older one keeps it. Creation times are whole seconds, and then the name
    // decides.
    rig.apply("b", &json!({"image": "i", "scaling": {"initial": 0}, "hosts": ["shop.example.org"]})).await;
    let lost = rig.function("b", "has lost the host", |f| condition(f, "Routable").1 == "HostConflict").await;
    assert!(message(&lost, "Routable").contains(&format!("{}/a", rig.namespace)));
    let a = rig.function("a", "has a first status", |f| f.status.is_some()).await;
    assert_eq!(condition(&a, "Routable").0, "True", "{a:#?}");
    rig.functions().delete("a", &DeleteParams::default()).await.unwrap();
    rig.function("b", "owns the host", |f| condition(f, "Routable").0 == "True").await;

    rig.apply("b", &json!({"image": "i", "scaling": {"initial": 0}, "visibility": "Cluster"})).await;
    eventually("an Ingress without hosts is deleted", async || {
        rig.ingresses().get_opt(&rig.ingress()).await.unwrap().is_none()
    })
    .await;
    let (wildcard, own) = (format!("*.{}.fn.test", rig.namespace), format!("b.{}.fn.test", rig.namespace));
    rig.apply("b", &json!({"image": "i", "scaling": {"initial": 0}, "protocol": "h2c", "hosts": ["shop.example.org"]}))
        .await;
    let h2c = [own, "shop.example.org".to_owned()];
    let ingress =
        wait_for(&rig.ingresses(), &h2c_name(&rig.namespace), "has the hosts of the h2c Function", |i| hosts(i) == h2c)
            .await;
    let paths = ingress.spec.unwrap().rules.unwrap().remove(0).http.unwrap().paths;
    assert_eq!(paths[0].backend.service.as_ref().unwrap().name, "rouse-activator-h2c");
    wait_for(&rig.ingresses(), &rig.ingress(), "has the wildcard alone", |i| hosts(i) == [wildcard.clone()]).await;
    rig.apply("b", &json!({"image": "i", "scaling": {"initial": 0}, "hosts": ["shop.example.org"]})).await;
    wait_for(&rig.ingresses(), &rig.ingress(), "has the host again", |i| {
        hosts(i) == [wildcard.clone(), "shop.example.org".into()]
    })
    .await;
    eventually("the h2c Ingress is deleted with its last Function", async || {
        rig.ingresses().get_opt(&h2c_name(&rig.namespace)).await.unwrap().is_none()
    })
    .await;
    rig.apply("b", &json!({"image": "i", "scaling": {"initial": 0}, "visibility": "Cluster"})).await;
    rig.function("b", "has no public URL", |f| f.status.as_ref().is_some_and(|s| s.url.is_none())).await;
    rig.end(Some(operator)).await;
}
