//! Revisions, and where the calls go.

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
async fn calls_move_to_a_revision_that_has_been_ready() {
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
    rig.function("hello", "has moved", |f| revision(f) == "hello-00002").await;

    rig.apply("hello", &json!({"image": "i:2", "scaling": {"max": 7}, "timeouts": {"response": "9s"}})).await;
    rig.function("hello", "has seen the change of its bounds", observed).await;
    let revisions: Api<ControllerRevision> = rig.api();
    let names: Vec<_> =
        revisions.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["hello-00001", "hello-00002"]);
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn a_broken_image_never_takes_calls_and_says_why() {
    let rig = Rig::new("broken").await;
    let operator = rig.operator().await;
    rig.apply("hello", &json!({"image": "i:1"})).await;
    rig.function("hello", "has a first status", |f| f.status.is_some()).await;
    rig.pods_ready("hello-00001", 1).await;
    rig.function("hello", "is ready", |f| condition(f, "Ready").0 == "True").await;
    rig.apply("hello", &json!({"image": "i:broken"})).await;
    let deployment: Deployment = rig.object("hello-00002", "exists", |_| true).await;

    // What the ReplicaSet controller and a kubelet would do.
    let template = deployment.spec.unwrap().template;
    let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(json!({
        "metadata": {"name": "hello-00002-x", "labels": template.metadata.unwrap().labels},
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
    let failed = rig.function("hello", "says kubelet's reason", |f| condition(f, "Ready").1 == "ErrImagePull").await;
    assert_eq!(condition(&failed, "RevisionReady"), ("False".into(), "ErrImagePull".into()));
    assert!(message(&failed, "Ready").contains("not found"));
    assert_eq!(revision(&failed), "hello-00001");

    pods.delete("hello-00002-x", &kube::api::DeleteParams::default().grace_period(0)).await.unwrap();
    rig.apply("hello", &json!({"image": "i:broken", "timeouts": {"response": "9s"}})).await;
    let after = rig.function("hello", "has seen the change", observed).await;
    assert_eq!(condition(&after, "RevisionReady"), ("False".into(), "ErrImagePull".into()), "it stays visible at zero");
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn a_template_that_is_none_is_named_and_harms_nothing() {
    let rig = Rig::new("invalid").await;
    let operator = rig.operator().await;
    rig.apply("hello", &json!({"image": "i:1"})).await;
    rig.function("hello", "has a first status", |f| f.status.is_some()).await;
    rig.apply("hello", &json!({"image": "i:1", "podTemplate": {"spec": {"nodeSelctor": {}}}})).await;
    let invalid = rig.function("hello", "says so", |f| condition(f, "Ready").1 == "Invalid").await;
    assert!(message(&invalid, "Ready").contains("spec.podTemplate.spec.nodeSelctor"));
    assert_eq!(revision(&invalid), "hello-00001");
    // What only the API server can tell.
    rig.apply("hello", &json!({"image": "i:1", "podTemplate": {"spec": {"nodeSelector": {"no key!": "x"}}}})).await;
    let refused =
        rig.function("hello", "says the API server's word", |f| message(f, "Ready").contains("nodeSelector")).await;
    assert_eq!(condition(&refused, "Ready").1, "Invalid");
    rig.apply("hello", &json!({"image": "i:1"})).await;
    rig.function("hello", "is mended", |f| condition(f, "Ready").1 == "Starting").await;
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn named_revisions_share_the_calls() {
    let rig = Rig::new("split").await;
    let operator = rig.operator().await;
    for image in ["i:1", "i:2"] {
        rig.apply("hello", &json!({"image": image, "scaling": {"initial": 0}})).await;
        rig.function("hello", "has seen the change", observed).await;
    }
    let split = json!([{"revision": "hello-00001", "percent": 90}, {"latest": true, "percent": 10, "tag": "next"}]);
    rig.apply("hello", &json!({"image": "i:2", "scaling": {"initial": 0}, "traffic": split})).await;
    let shared = rig.function("hello", "shares", |f| f.status.as_ref().is_some_and(|s| s.traffic.len() == 2)).await;
    let traffic = serde_json::to_value(&shared.status.unwrap().traffic).unwrap();
    assert_eq!(
        traffic,
        json!([{"revision": "hello-00001", "percent": 90}, {"revision": "hello-00002", "percent": 10, "latest": true, "tag": "next"}])
    );
    let missing = json!([{"revision": "hello-00009", "percent": 100}]);
    rig.apply("hello", &json!({"image": "i:2", "scaling": {"initial": 0}, "traffic": missing})).await;
    let bad = rig.function("hello", "misses it", |f| condition(f, "Routable").1 == "RevisionMissing").await;
    assert_eq!(serde_json::to_value(&bad.status.unwrap().traffic).unwrap(), traffic);
    rig.end(Some(operator)).await;
}

#[tokio::test]
async fn only_the_last_ten_revisions_are_kept() {
    let rig = Rig::new("history").await;
    let operator = rig.operator().await;
    for number in 1..=12 {
        rig.apply("hello", &json!({"image": format!("i:{number}"), "scaling": {"initial": 0}})).await;
        let name = format!("hello-{number:05}");
        rig.function("hello", "has the next revision", |f| latest(f) == Some(&name)).await;
    }
    let revisions: Api<ControllerRevision> = rig.api();
    crate::rig::eventually("ten are left", async || {
        let left: Vec<_> =
            revisions.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
        let deployments = rig.deployments().list(&ListParams::default()).await.unwrap().items.len();
        left.len() == 10 && left[0] == "hello-00003" && deployments == 10
    })
    .await;
    rig.end(Some(operator)).await;
}
