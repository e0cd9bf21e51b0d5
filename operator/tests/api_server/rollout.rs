//! Revisions, rollouts and the traffic split.

use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use rouse_crds::Function;
use serde_json::json;

use crate::rig::{Rig, condition, message};

fn revision(function: &Function) -> String {
    function.status.as_ref().and_then(|s| s.traffic.first()).map(|t| t.revision.clone()).unwrap_or_default()
}

fn latest(function: &Function) -> Option<&str> {
    function.status.as_ref()?.latest_revision.as_deref()
}

fn observed(function: &Function) -> bool {
    function.status.as_ref().and_then(|s| s.observed_generation) == function.metadata.generation
}

#[tokio::test]
async fn traffic_moves_to_a_ready_revision() {
    let rig = Rig::new("rollout").await;
    let operator = rig.operator().await;
    rig.apply("hello", &json!({"image": "i:1"})).await;
    rig.function("hello", "has a first status", |f| f.status.is_some()).await;
    rig.pods_ready("hello-00001", 1).await;
    rig.function("hello", "is ready", |f| condition(f, "Ready").0 == "True").await;

    rig.apply("hello", &json!({"image": "i:2"})).await;
    let rolling = rig.function("hello", "has a second revision", |f| latest(f) == Some("hello-00002")).await;
    assert_eq!(revision(&rolling), "hello-00001");
    assert_eq!(condition(&rolling, "RevisionReady"), ("Unknown".into(), "Starting".into()));
    rig.pods_ready("hello-00002", 1).await;
    rig.function("hello", "has moved its traffic", |f| revision(f) == "hello-00002").await;

    rig.apply("hello", &json!({"image": "i:2", "scaling": {"max": 7}, "timeouts": {"response": "9s"}})).await;
    rig.function("hello", "has observed the change of its bounds", observed).await;
    let revisions: Api<ControllerRevision> = rig.api();
    let names: Vec<_> =
        revisions.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["hello-00001", "hello-00002"]);
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn a_broken_image_never_receives_traffic_and_reports_the_reason() {
    let rig = Rig::new("broken").await;
    let operator = rig.operator().await;
    rig.apply("hello", &json!({"image": "i:1"})).await;
    rig.function("hello", "has a first status", |f| f.status.is_some()).await;
    rig.pods_ready("hello-00001", 1).await;
    rig.function("hello", "is ready", |f| condition(f, "Ready").0 == "True").await;
    rig.apply("hello", &json!({"image": "i:broken"})).await;
    let deployment: Deployment = rig.object("hello-00002", "exists", |_| true).await;

    // As the ReplicaSet controller and the kubelet.
    let template = deployment.spec.unwrap().template;
    let mut labels = template.metadata.unwrap().labels.unwrap();
    labels.insert("pod-template-hash".to_owned(), "abc".to_owned());
    let replica_set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "hello-00002-abc", "uid": "r", "controller": true});
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
        "metadata": {"name": "hello-00002-x", "labels": labels, "ownerReferences": [replica_set]},
        "spec": template.spec,
    }))
    .unwrap();
    let pods: Api<k8s_openapi::api::core::v1::Pod> = rig.api();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let status = json!({"status": {"phase": "Pending", "containerStatuses": [{
        "name": "function", "image": "i:broken", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}},
    }]}});
    pods.patch_status("hello-00002-x", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let failed =
        rig.function("hello", "reports the reason of the kubelet", |f| condition(f, "Ready").1 == "ErrImagePull").await;
    assert_eq!(condition(&failed, "RevisionReady"), ("False".into(), "ErrImagePull".into()));
    assert!(message(&failed, "Ready").contains("not found"));
    assert_eq!(revision(&failed), "hello-00001");

    pods.delete("hello-00002-x", &kube::api::DeleteParams::default().grace_period(0)).await.unwrap();
    rig.apply("hello", &json!({"image": "i:broken", "timeouts": {"response": "9s"}})).await;
    let after = rig.function("hello", "has observed the change", observed).await;
    assert_eq!(condition(&after, "RevisionReady"), ("False".into(), "ErrImagePull".into()), "it stays visible at zero");
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn an_invalid_template_is_reported_and_keeps_the_traffic_split() {
    let rig = Rig::new("invalid").await;
    let operator = rig.operator().await;
    rig.apply("hello", &json!({"image": "i:1"})).await;
    rig.function("hello", "has a first status", |f| f.status.is_some()).await;
    rig.apply("hello", &json!({"image": "i:1", "podTemplate": {"spec": {"nodeSelctor": {}}}})).await;
    let invalid = rig.function("hello", "is invalid", |f| condition(f, "Ready").1 == "Invalid").await;
    assert!(message(&invalid, "Ready").contains("spec.podTemplate.spec.nodeSelctor"));
    assert_eq!(revision(&invalid), "hello-00001");
    // An error that only the API server detects.
    rig.apply("hello", &json!({"image": "i:1", "podTemplate": {"spec": {"nodeSelector": {"no key!": "x"}}}})).await;
    let refused = rig
        .function("hello", "reports the message of the API server", |f| message(f, "Ready").contains("nodeSelector"))
        .await;
    assert_eq!(condition(&refused, "Ready").1, "Invalid");
    rig.apply("hello", &json!({"image": "i:1"})).await;
    rig.function("hello", "is fixed", |f| condition(f, "Ready").1 == "Starting").await;
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn traffic_is_split_between_named_revisions() {
    let rig = Rig::new("split").await;
    let operator = rig.operator().await;
    for image in ["i:1", "i:2"] {
        rig.apply("hello", &json!({"image": image, "scaling": {"initial": 0}})).await;
        rig.function("hello", "has observed the change", observed).await;
    }
    let split = json!([{"revision": "hello-00001", "percent": 90}, {"latest": true, "percent": 10, "tag": "next"}]);
    rig.apply("hello", &json!({"image": "i:2", "scaling": {"initial": 0}, "traffic": split})).await;
    let shared =
        rig.function("hello", "splits its traffic", |f| f.status.as_ref().is_some_and(|s| s.traffic.len() == 2)).await;
    let traffic = serde_json::to_value(&shared.status.unwrap().traffic).unwrap();
    assert_eq!(
        traffic,
        json!([{"revision": "hello-00001", "percent": 90}, {
            "revision": "hello-00002", "percent": 10, "latest": true, "tag": "next",
            "url": format!("http://next-hello.{}.fn.test", rig.namespace),
        }])
    );
    let missing = json!([{"revision": "hello-00009", "percent": 100}]);
    rig.apply("hello", &json!({"image": "i:2", "scaling": {"initial": 0}, "traffic": missing})).await;
    let bad = rig
        .function("hello", "reports the missing revision", |f| condition(f, "Routable").1 == "RevisionMissing")
        .await;
    assert_eq!(serde_json::to_value(&bad.status.unwrap().traffic).unwrap(), traffic);
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn ten_revisions_without_traffic_are_retained() {
    let rig = Rig::new("history").await;
    let operator = rig.operator().await;
    for number in 1..=12 {
        rig.apply("hello", &json!({"image": format!("i:{number}"), "scaling": {"initial": 0}})).await;
        let name = format!("hello-{number:05}");
        rig.function("hello", "has the next revision", |f| latest(f) == Some(&name)).await;
    }
    let revisions: Api<ControllerRevision> = rig.api();
    crate::rig::eventually("ten remain besides the latest", async || {
        let left: Vec<_> =
            revisions.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
        let deployments = rig.deployments().list(&ListParams::default()).await.unwrap().items.len();
        left.len() == 11 && left[0] == "hello-00002" && deployments == 11
    })
    .await;
    rig.end(Some(operator)).await;
}

fn split(function: &Function) -> Vec<(String, i32)> {
    let traffic = function.status.iter().flat_map(|s| &s.traffic);
    traffic.map(|share| (share.revision.clone(), share.percent)).collect()
}

#[tokio::test]
async fn traffic_moves_in_steps_and_a_named_revision_takes_it_back_at_once() {
    let rig = Rig::new("steps").await;
    let operator = rig.operator().await;
    let spec = |image: &str, more: serde_json::Value| {
        let mut spec = json!({"image": image, "rollout": {"steps": [10, 50], "interval": "2s"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    rig.apply("hello", &spec("i:1", json!({}))).await;
    rig.function("hello", "has a first status", |f| f.status.is_some()).await;
    rig.pods_ready("hello-00001", 1).await;
    rig.function("hello", "is ready", |f| condition(f, "Ready").0 == "True").await;

    rig.apply("hello", &spec("i:2", json!({}))).await;
    rig.function("hello", "has a second revision", |f| latest(f) == Some("hello-00002")).await;
    rig.pods_ready("hello-00002", 1).await;
    let of = |percent: i32| vec![("hello-00001".to_owned(), 100 - percent), ("hello-00002".to_owned(), percent)];
    rig.function("hello", "is at ten percent", |f| split(f) == of(10)).await;
    rig.function("hello", "is at fifty percent", |f| split(f) == of(50)).await;

    let named = json!({"traffic": [{"revision": "hello-00001", "percent": 100}]});
    rig.apply("hello", &spec("i:2", named)).await;
    let back = rig.function("hello", "is rolled back", |f| split(f) == [("hello-00001".to_owned(), 100)]).await;
    assert_eq!(back.status.unwrap().rollout, None);

    rig.apply("hello", &spec("i:2", json!({}))).await;
    rig.function("hello", "restarts", |f| split(f) == of(10)).await;
    rig.pods_ready("hello-00002", 2).await;
    let done = rig.function("hello", "has moved its traffic", |f| split(f) == [("hello-00002".to_owned(), 100)]).await;
    let status = done.status.unwrap();
    assert_eq!(status.rollout, None);
    let listed: Vec<_> = status.revisions.iter().map(|r| (r.name.as_str(), r.image.as_str(), r.percent)).collect();
    assert_eq!(listed, [("hello-00002", "i:2", 100), ("hello-00001", "i:1", 0)]);
    assert!(status.revisions.iter().all(|r| r.created.is_some()));
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn a_tag_loses_its_host_to_a_default_host() {
    let rig = Rig::new("tag").await;
    let operator = rig.operator().await;
    let traffic = json!([{"latest": true, "percent": 100, "tag": "next"}]);
    rig.apply("hello", &json!({"image": "i", "scaling": {"initial": 0}, "traffic": traffic})).await;
    let url = |f: &Function| f.status.as_ref().and_then(|s| s.traffic.first()).and_then(|t| t.url.clone());
    let host = format!("http://next-hello.{}.fn.test", rig.namespace);
    rig.function("hello", "has a host for its tag", |f| url(f) == Some(host.clone())).await;
    rig.apply("next-hello", &json!({"image": "i", "scaling": {"initial": 0}})).await;
    let lost = rig.function("hello", "has lost it", |f| condition(f, "Routable").1 == "HostConflict").await;
    assert!(message(&lost, "Routable").contains(&format!("{}/next-hello", rig.namespace)));
    assert_eq!((url(&lost), split(&lost)), (None, vec![("hello-00001".to_owned(), 100)]), "its traffic split stays");
    rig.functions().delete("next-hello", &kube::api::DeleteParams::default()).await.unwrap();
    rig.function("hello", "has it again", |f| url(f) == Some(host.clone()) && condition(f, "Routable").0 == "True")
        .await;
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn a_change_of_a_watched_config_map_creates_a_revision() {
    let rig = Rig::new("config").await;
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = rig.api();
    let write = async |value: &str| {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": value}});
        maps.patch("c", &PatchParams::apply("user").force(), &Patch::Apply(map)).await.unwrap();
    };
    write("1").await;
    let spec = json!({
        "image": "i", "scaling": {"initial": 0}, "envFrom": [{"configMapRef": {"name": "c"}}],
        "rollout": {"onConfigChange": "NewRevision"},
    });
    let ignorant = rig.operator().await;
    rig.apply("hello", &spec).await;
    let ready = rig.function("hello", "is ready", |f| condition(f, "Ready").0 == "True").await;
    assert!(message(&ready, "Ready").contains("operator.watchConfig"), "{}", message(&ready, "Ready"));
    ignorant.stop().await;

    let watching = rig.operator_that(|args| args.watch_config = true).await;
    // Enabling it creates no revision; the versions are recorded.
    rig.object("hello-00001", "has the versions", |r: &ControllerRevision| {
        r.annotations().get("rouse.dev/config").is_some_and(|text| text.contains("ConfigMap/c"))
    })
    .await;
    rig.function("hello", "has no notice", |f| !message(f, "Ready").contains("operator.watchConfig")).await;
    write("2").await;
    rig.function("hello", "has a second revision", |f| latest(f) == Some("hello-00002")).await;
    let revisions: Api<ControllerRevision> = rig.api();
    assert_eq!(revisions.list(&ListParams::default()).await.unwrap().items.len(), 2);
    rig.end(Some(watching)).await;
}

/// Argo CD and Flux apply the same object repeatedly, with their own field managers.
#[tokio::test]
async fn repeated_applies_of_other_managers_cause_no_writes() {
    let rig = Rig::new("reapply").await;
    let operator = rig.operator().await;
    let spec = json!({
        "image": "i:1", "env": [{"name": "A", "value": "1"}], "rollout": {"steps": [10], "abortOn": {"errorRate": "5%"}},
        "traffic": [{"latest": true, "percent": 100, "tag": "next"}],
        "podTemplate": {"spec": {"nodeSelector": {"disk": "ssd"}}},
    });
    rig.apply("hello", &spec).await;
    rig.function("hello", "has a first status", |f| f.status.is_some()).await;
    rig.pods_ready("hello-00001", 1).await;
    let before = rig.function("hello", "is ready", |f| condition(f, "Ready").0 == "True").await;
    crate::rig::eventually("the Ingress exists", async || {
        rig.ingresses().get_opt(&rig.ingress()).await.unwrap().is_some()
    })
    .await;
    let quiet = async || {
        let mut writes = operator.writes();
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let now = operator.writes();
            if now == writes {
                return writes;
            }
            writes = now;
        }
    };
    let writes = quiet().await;
    let reconciles = || operator.metric(r#"rouse_operator_reconciles_total{result="success"}"#);
    for manager in ["argocd-controller", "kustomize-controller"] {
        let seen = reconciles();
        let body = json!({"apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "metadata": {"name": "hello"}, "spec": spec});
        for _ in 0..3 {
            let params = PatchParams::apply(manager).force();
            rig.functions().patch("hello", &params, &Patch::Apply(&body)).await.unwrap();
        }
        crate::rig::eventually("the operator has reconciled", async || reconciles() > seen).await;
    }
    assert_eq!(quiet().await, writes);
    let after = rig.functions().get("hello").await.unwrap();
    assert_eq!((after.spec, after.status), (before.spec, before.status));
    assert_eq!(after.metadata.generation, before.metadata.generation);
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn a_deleted_revision_with_traffic_is_reported_and_the_others_serve() {
    let rig = Rig::new("deleted").await;
    let operator = rig.operator().await;
    for image in ["i:1", "i:2"] {
        rig.apply("hello", &json!({"image": image, "scaling": {"initial": 0}})).await;
        rig.function("hello", "has observed the change", observed).await;
    }
    let traffic = json!([{"revision": "hello-00001", "percent": 30}, {"revision": "hello-00002", "percent": 70}]);
    rig.apply("hello", &json!({"image": "i:2", "scaling": {"initial": 0}, "traffic": traffic})).await;
    rig.function("hello", "splits its traffic", |f| split(f).len() == 2).await;
    operator.stop().await;
    // Deletes both Deployment and ControllerRevision, because one of them would be recreated from the other.
    let revisions: Api<ControllerRevision> = rig.api();
    revisions.delete("hello-00001", &kube::api::DeleteParams::default()).await.unwrap();
    rig.deployments().delete("hello-00001", &kube::api::DeleteParams::default()).await.unwrap();
    let operator = rig.operator().await;
    let named = rig
        .function("hello", "reports the missing revision", |f| condition(f, "Routable").1 == "RevisionMissing")
        .await;
    assert!(message(&named, "Routable").contains("hello-00001"));
    assert_eq!(split(&named), [("hello-00002".to_owned(), 100)]);
    rig.end(Some(operator)).await;
}
