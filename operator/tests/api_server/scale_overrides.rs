//! Manual counts, `scaling.paused`, schedules, and a scale-down under load, against a real API server. The test plays the
//! kubelet and the activator.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod, events::v1::Event};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use rouse_crds::{
    Function,
    names::{FUNCTION_LABEL, FUNCTION_UID_LABEL, POD_DELETION_COST_ANNOTATION, REVISION_LABEL},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    rig::{Rig, condition, eventually, message},
    scale::ScalerRig,
};

const DEPLOYMENT: &str = "hello-00001";

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().unwrap().replicas.unwrap()
}

/// Scales, as `kubectl scale`.
async fn scale(rig: &Rig, count: i32) {
    let patch = Patch::Merge(json!({"spec": {"replicas": count}}));
    rig.deployments().patch_scale(DEPLOYMENT, &PatchParams::default(), &patch).await.unwrap();
}

/// Patches `spec.scaling`.
async fn edit(rig: &Rig, scaling: Value) {
    let patch = Patch::Merge(json!({"spec": {"scaling": scaling}}));
    rig.functions().patch("hello", &PatchParams::default(), &patch).await.unwrap();
}

/// Notes of the Events with this reason.
async fn event_notes(rig: &Rig, reason: &str) -> Vec<String> {
    let events: Api<Event> = rig.api();
    let all = events.list(&ListParams::default()).await.unwrap();
    all.into_iter().filter(|e| e.reason.as_deref() == Some(reason)).filter_map(|e| e.note).collect()
}

#[tokio::test]
async fn a_manual_count_is_corrected_unless_paused() {
    let rig = Rig::new("wishes").await;
    let scaling = json!({"min": 1, "max": 1, "prewarm": "Auto"});
    let scaler = ScalerRig::new(&rig, &json!({"image": "i", "scaling": scaling})).await;
    scaler.send_frame(&rig, 0, &[]);
    // The scaler has to observe the count 1 before it is changed to 4.
    rig.object(DEPLOYMENT, "is at one", |d| replicas(d) == 1).await;
    let key = rouse_operator::cluster::key::FunctionKey::new(&rig.namespace, "hello");
    scaler.scaler.clone().reconcile(key).await;
    scale(&rig, 4).await;
    scaler.send_frame(&rig, 0, &[]);
    rig.object(DEPLOYMENT, "is at one again", |d| replicas(d) == 1).await;
    eventually("an Event is recorded", async || event_notes(&rig, "ScaleCorrected").await.len() == 1).await;
    let note = event_notes(&rig, "ScaleCorrected").await.remove(0);
    assert!(note.starts_with("hello-00001 was scaled from 1 to 4 pods by another client"), "{note}");

    edit(&rig, json!({"paused": true})).await;
    let paused = |f: &Function| f.spec.scaling().paused();
    rig.function("hello", "is paused", paused).await;
    // A manual count that stays shows that the scaler has observed the pause.
    eventually("the manual count is kept", async || {
        scaler.send_frame(&rig, 0, &[]);
        scale(&rig, 3).await;
        let until = Instant::now() + Duration::from_secs(1);
        while Instant::now() < until {
            scaler.send_frame(&rig, 0, &[]);
            if replicas(&rig.deployments().get(DEPLOYMENT).await.unwrap()) != 3 {
                return false;
            }
            sleep(Duration::from_millis(50)).await;
        }
        true
    })
    .await;

    edit(&rig, json!({"paused": null, "max": 9, "schedules": [{"cron": "* * * * *", "timeZone": "Asia/Tokyo", "duration": "5m", "min": 6}]})).await;
    rig.object(DEPLOYMENT, "is at the count of the schedule", |d| replicas(d) == 6).await;
    eventually("an Event is recorded", async || event_notes(&rig, "Scheduled").await.len() == 1).await;
    scaler.end(rig).await;
}

#[tokio::test]
async fn an_invalid_schedule_is_reported() {
    let rig = Rig::new("schedule").await;
    let operator = rig.operator().await;
    // Prewarming is on, since otherwise the autoscaler removes its field.
    let schedule = |cron: &str, zone: &str| {
        let schedules = json!([{"cron": cron, "timeZone": zone, "duration": "1h", "min": 1}]);
        json!({"image": "i", "scaling": {"prewarm": "Auto", "schedules": schedules}})
    };
    rig.apply("hello", &schedule("0 8 * * *", "Mars/Olympus")).await;
    let invalid = |f: &Function| condition(f, "Ready").1 == "Invalid";
    let rejected = rig.function("hello", "is not valid", invalid).await;
    assert!(
        message(&rejected, "Ready").starts_with("spec.scaling.schedules[0].timeZone: `Mars/Olympus`"),
        "{rejected:?}"
    );
    rig.apply("hello", &schedule("0 8 31 2 *", "Europe/Berlin")).await;
    rig.function("hello", "names the other field", |f| {
        message(f, "Ready").starts_with("spec.scaling.schedules[0].cron")
    })
    .await;
    rig.apply("hello", &schedule("0 8 * * *", "Europe/Berlin")).await;
    rig.function("hello", "is valid", |f| !invalid(f)).await;
    // The reconciler ignores the autoscaler's field.
    let histogram =
        json!({"apiVersion": "rouse.dev/v1alpha1", "kind": "Function", "status": {"idleHistogram": "1:2.1;=0"}});
    let params = PatchParams::apply("rouse-autoscaler");
    rig.functions().patch_status("hello", &params, &Patch::Apply(histogram)).await.unwrap();
    let before = operator.writes();
    rig.pods_ready(DEPLOYMENT, 1).await;
    let ready = |f: &Function| condition(f, "RevisionReady").0 == "True";
    let function = rig.function("hello", "has a ready revision", ready).await;
    assert_eq!(function.status.unwrap().idle_histogram.as_deref(), Some("1:2.1;=0"), "the field stays");
    assert_ne!(operator.writes(), before);
    rig.end(Some(operator)).await;
}

/// Creates a ready pod, as the ReplicaSet controller and the kubelet.
async fn pod(rig: &Rig, name: &str, uid: &str) {
    let pods: Api<Pod> = rig.api();
    let pod = json!({
        "metadata": {
            "name": name,
            "labels": {FUNCTION_LABEL: "hello", REVISION_LABEL: DEPLOYMENT, FUNCTION_UID_LABEL: uid, "pod-template-hash": "5d9f"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{DEPLOYMENT}-5d9f"), "uid": "u", "controller": true}],
        },
        "spec": {"containers": [{"name": "function", "image": "i"}], "automountServiceAccountToken": false},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

fn cost(pod: &Pod) -> i64 {
    pod.annotations().get(POD_DELETION_COST_ANNOTATION).map_or(0, |c| c.parse().unwrap())
}

#[tokio::test]
async fn lowering_max_under_load_deletes_only_empty_pods() {
    let rig = Rig::new("drain").await;
    let scaler = ScalerRig::new(&rig, &json!({"image": "i", "scaling": {"min": 3, "target": 1}})).await;
    rig.object(DEPLOYMENT, "is at three", |d| replicas(d) == 3).await;
    let uid = rig.functions().get("hello").await.unwrap().uid().unwrap();
    let mut loads = vec![("a".to_owned(), 3), ("b".to_owned(), 1), ("c".to_owned(), 2)];
    for (name, _) in &loads {
        pod(&rig, name, &uid).await;
    }
    rig.pods_ready(DEPLOYMENT, 3).await;
    let pods: Api<Pod> = rig.api();
    // Deletes pods as the ReplicaSet controller does, and sends a frame of an activator that follows the marks.
    let sync = async |loads: &mut Vec<(String, u64)>| -> i32 {
        let mut existing = pods.list(&ListParams::default()).await.unwrap().items;
        let desired = replicas(&rig.deployments().get(DEPLOYMENT).await.unwrap());
        existing.sort_by_key(cost);
        while existing.len() > usize::try_from(desired).unwrap() {
            let deleted = existing.remove(0).name_any();
            let load = loads.iter().find(|(name, _)| *name == deleted).unwrap().1;
            assert_eq!(load, 0, "{deleted} was deleted with requests in it");
            loads.retain(|(name, _)| *name != deleted);
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            pods.delete(&deleted, &now).await.unwrap();
        }
        let reports: Vec<_> = existing
            .iter()
            .map(|pod| (pod.name_any(), loads.iter().find(|(n, _)| *n == pod.name_any()).unwrap().1, cost(pod) < 0))
            .filter(|(_, load, draining)| *load > 0 || *draining)
            .collect();
        scaler.send_frame(&rig, 100, &reports);
        desired
    };
    sync(&mut loads).await;
    edit(&rig, json!({"min": null, "max": 1})).await;
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        assert_eq!(sync(&mut loads).await, 3, "every pod has requests");
        sleep(Duration::from_millis(200)).await;
    }
    let marked: Vec<_> = pods
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .filter(|p| cost(p) < 0)
        .map(kube::ResourceExt::name_any)
        .collect();
    assert_eq!(marked, ["b", "c"], "the pods with the fewest requests");
    for (name, count) in [("c", 2), ("b", 1)] {
        loads.iter_mut().find(|(n, _)| n == name).unwrap().1 = 0;
        let start = Instant::now();
        while sync(&mut loads).await != count || loads.len() > usize::try_from(count).unwrap() {
            assert!(start.elapsed() < crate::rig::LIMIT, "{name} is empty and was not deleted");
            sleep(Duration::from_millis(100)).await;
        }
        assert!(loads.iter().all(|(n, _)| n != name));
    }
    assert_eq!(loads, [("a".to_owned(), 3)]);
    scaler.end(rig).await;
    pods.delete("a", &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.unwrap();
}
