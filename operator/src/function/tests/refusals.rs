//! Writes that the API server refuses: the status reports the refusal and is up to date otherwise, rollouts are judged,
//! and everything heals when the writes are accepted again.

use http::Method;
use rand::{SeedableRng as _, rngs::StdRng};
use rouse_crds::{
    conditions::{READY, REVISION_READY, ROUTABLE, SYNCED},
    function::RolloutPhase,
};
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    fake_api::Refusal,
    properties::scenario,
    world::{Step, World, result},
};

/// What an admission webhook that denies without a status code leads to.
const DENIAL: &str = "admission webhook \"policy.example.org\" denied the request: no";

fn denied(resource: &'static str) -> Refusal {
    Refusal::of(resource, 400, DENIAL)
}

#[rstest]
#[case::webhook(400, "False", "Invalid")]
#[case::policy(403, "False", "Invalid")]
#[case::too_large(413, "False", "Invalid")]
#[case::schema(422, "False", "Invalid")]
#[case::overload(429, "Unknown", "WriteFailed")]
#[case::webhook_unavailable(500, "Unknown", "WriteFailed")]
#[case::api_server_unavailable(503, "Unknown", "WriteFailed")]
#[tokio::test(start_paused = true)]
async fn a_refused_create_is_reported_and_heals(#[case] code: u16, #[case] status: &str, #[case] reason: &str) {
    for (resource, type_) in
        [("controllerrevisions", REVISION_READY), ("deployments", REVISION_READY), ("services", ROUTABLE)]
    {
        let mut world = World::new(0);
        world.api.refuse(Refusal::of(resource, code, DENIAL));
        world.perform(&Step::Image(1));
        world.turns(3).await;
        for type_ in [type_, READY] {
            let (is, why, message) = world.condition(type_);
            assert_eq!((is.as_str(), why.as_str()), (status, reason), "{type_} with {resource} refused");
            assert!(message.contains(DENIAL), "{message}");
        }
        assert_ne!(world.condition(SYNCED).0, "True");
        let exists = resource == "services";
        assert_eq!(world.traffic().is_empty(), !exists, "a revision without a Deployment has no traffic");
        world.api.accept();
        world.perform(&Step::Ready(1));
        world.turns(3).await;
        world.perform(&Step::Ready(1));
        world.turns(3).await;
        assert_eq!(world.condition(READY).0, "True", "{resource}: {:#?}", world.status());
        assert_eq!(world.condition(SYNCED).0, "True");
        assert_eq!(world.traffic(), [("hello-00001".to_owned(), 100)]);
    }
}

/// A webhook that does not respond takes its timeout for each write. The status is written nevertheless.
#[tokio::test(start_paused = true)]
async fn requests_without_a_response_are_reported() {
    let mut world = World::new(0);
    world.api.refuse(Refusal::of("controllerrevisions", 0, ""));
    world.api.refuse(Refusal::of("services", 0, ""));
    world.perform(&Step::Image(1));
    world.turns(1).await;
    let (status, reason, message) = world.condition(REVISION_READY);
    assert_eq!((status.as_str(), reason.as_str()), ("Unknown", "WriteFailed"), "{:#?}", world.status());
    assert!(message.contains("no response"), "{message}");
}

/// `from_before` is the status of an operator that gave traffic to a revision that does not exist.
#[rstest]
#[case(false)]
#[case(true)]
#[tokio::test(start_paused = true)]
async fn a_rejected_first_revision_does_not_hold_back_its_successor(#[case] from_before: bool) {
    let mut world = World::new(0);
    world.api.refuse(Refusal { name: "hello-00001", ..Refusal::of("deployments", 422, "Not found: \"data\"") });
    world.perform(&Step::Image(1));
    world.turns(3).await;
    assert_eq!(world.condition(READY).1, "Invalid");
    assert_eq!(world.traffic(), []);
    if from_before {
        world.api.edit("functions", "hello", |function| {
            function["status"]["traffic"] = json!([{"revision": "hello-00001", "percent": 100, "latest": true}]);
        });
    }
    world.perform(&Step::Image(2));
    world.turns(3).await;
    world.perform(&Step::Ready(1));
    world.turns(3).await;
    assert_eq!(world.traffic(), [("hello-00002".to_owned(), 100)]);
    let (status, _, message) = world.condition(READY);
    assert_eq!(status, "True", "{message}");
    assert_eq!(world.condition(SYNCED).0, "True", "{}", world.condition(SYNCED).2);
    assert_eq!(world.api.get("controllerrevisions", "hello-00001"), None, "it is of no use");
}

/// A Deployment that was deleted and cannot be recreated: the others are not affected.
#[tokio::test(start_paused = true)]
async fn a_revision_that_cannot_be_recreated_does_not_block_a_new_one() {
    let mut world = World::new(0);
    for image in 1..=2 {
        world.step(&Step::Image(image)).await;
        world.step(&Step::Ready(1)).await;
    }
    world.api.refuse(Refusal { name: "hello-00002", ..denied("deployments") });
    world.api.remove("deployments", "hello-00002");
    world.turns(3).await;
    assert_eq!(world.condition(READY).1, "Invalid");
    world.perform(&Step::Image(3));
    world.turns(2).await;
    world.perform(&Step::Ready(1));
    world.turns(2).await;
    assert_eq!(world.traffic(), [("hello-00003".to_owned(), 100)]);
    assert_eq!(world.condition(READY).0, "True", "{}", world.condition(READY).2);
}

/// While the API server cannot say, traffic stays where it was.
#[tokio::test(start_paused = true)]
async fn an_unavailable_webhook_moves_no_traffic() {
    let mut world = World::new(0);
    world.step(&Step::Image(1)).await;
    world.step(&Step::Ready(1)).await;
    world.api.refuse(Refusal::of("deployments", 500, "failed calling webhook"));
    world.api.remove("deployments", "hello-00001");
    world.perform(&Step::Image(2));
    world.turns(3).await;
    assert_eq!(world.traffic(), [("hello-00001".to_owned(), 100)]);
    world.api.accept();
    world.turns(3).await;
    assert_eq!(world.traffic(), [("hello-00001".to_owned(), 100)]);
}

/// A namespace that is being deleted takes its Functions with it. It says nothing about them.
#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_being_deleted_is_no_failure_of_the_function() {
    let mut world = World::new(0);
    let ending = Refusal { reason: "Forbidden", causes: vec!["NamespaceTerminating"], ..Refusal::of("", 403, "m") };
    world.api.refuse(Refusal { method: Some(Method::POST), ..ending });
    world.perform(&Step::Image(1));
    world.turns(3).await;
    assert_eq!(world.condition(READY).0, "Unknown", "{:#?}", world.status());
    assert_eq!(world.condition(SYNCED).0, "True", "{:#?}", world.status());
}

/// All writes of one kind are refused in the middle of a rollout step whose requests fail.
#[rstest]
#[tokio::test(start_paused = true)]
async fn a_refused_write_does_not_block_a_rollback(
    #[values("services", "deployments", "controllerrevisions")] resource: &'static str,
    #[values(0, 400, 403, 409, 422, 429, 500)] code: u16,
) {
    let mut world = World::new(0);
    for image in 1..=3 {
        world.step(&Step::Image(image)).await;
        world.step(&Step::Ready(1)).await;
    }
    world.step(&Step::Rollout(json!({"steps": [10], "abortOn": {"errorRate": "5%"}}))).await;
    world.step(&Step::Image(4)).await;
    world.perform(&Step::Ready(1));
    world.turns(3).await;
    assert_eq!(world.status().rollout.map(|r| r.percent), Some(10));
    world.api.refuse(Refusal::of(resource, code, DENIAL));
    // One object of each kind is missing, and one was modified.
    world.api.remove("services", "hello");
    world.api.remove("controllerrevisions", "hello-00004");
    world.api.edit("deployments", "hello-00003", |d| d["spec"]["progressDeadlineSeconds"] = json!(1));
    world.perform(&Step::Requests(50, 50));
    world.turns(3).await;
    let status = world.status();
    assert_eq!(status.rollout.as_ref().map(|r| r.phase), Some(RolloutPhase::Aborted), "{status:#?}");
    assert_eq!(world.traffic(), [("hello-00003".to_owned(), 100)]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_deletion_does_not_block_a_rollback() {
    let mut world = World::new(0);
    for image in 1..=3 {
        world.step(&Step::Image(image)).await;
        world.step(&Step::Ready(1)).await;
    }
    world.step(&Step::Rollout(json!({"steps": [10], "abortOn": {"errorRate": "5%"}}))).await;
    world.step(&Step::Image(4)).await;
    world.perform(&Step::Ready(1));
    world.perform(&Step::Idle);
    world.spec["revisionHistoryLimit"] = json!(0);
    world.write_spec();
    let denied = Refusal { method: Some(Method::DELETE), ..Refusal::of("", 403, "no deletions on Fridays") };
    world.api.refuse(denied);
    world.turns(3).await;
    assert_eq!(world.revisions().len(), 4, "two are surplus and cannot be deleted");
    assert_eq!(world.status().rollout.map(|r| r.percent), Some(10));
    world.perform(&Step::Requests(50, 50));
    world.turns(3).await;
    let status = world.status();
    assert_eq!(status.rollout.map(|r| r.phase), Some(RolloutPhase::Aborted));
    assert_eq!(world.traffic(), [("hello-00003".to_owned(), 100)]);
    let (synced, _, message) = world.condition(SYNCED);
    assert_eq!(synced, "False");
    assert!(message.contains("no deletions on Fridays"), "{message}");
}

/// The write with any number is refused, with any status. The status says so, and the result is the same.
#[tokio::test(start_paused = true)]
async fn the_status_reports_a_refusal_of_any_write_and_the_result_is_the_same() {
    let runs = std::env::var("ROUSE_TEST_LIVES").map_or(1, |runs| runs.parse().unwrap());
    let mut reported = 0;
    for seed in 0..runs {
        let scenario = scenario(&mut StdRng::seed_from_u64(seed));
        let whole = run(seed, &scenario, None, &mut 0).await;
        let expected = without_times(result(&whole));
        for write in 1..=whole.api.writes() {
            for code in [400, 403, 409, 422, 429, 500] {
                let world = run(seed, &scenario, Some((write, code)), &mut reported).await;
                assert_eq!(
                    without_times(result(&world)),
                    expected,
                    "seed {seed}: write {write} was refused with {code}, of {scenario:#?}"
                );
            }
        }
    }
    assert!(reported > 20, "only {reported} refusals were reported");
}

async fn run(seed: u64, scenario: &[Step], refused: Option<(usize, u16)>, reported: &mut usize) -> World {
    let mut world = World::new(seed);
    if let Some((number, code)) = refused {
        world.api.refuse_write(number, code);
    }
    for step in scenario {
        world.step(step).await;
    }
    *reported += world.reported;
    world
}

/// A condition that was false for a moment is true since then.
fn without_times(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(name, _)| name != "lastTransitionTime")
            .map(|(name, value)| (name, without_times(value)))
            .collect(),
        Value::Array(list) => list.into_iter().map(without_times).collect(),
        other => other,
    }
}

/// `kubectl delete --cascade=orphan` leaves the objects without an owner. The next Function of the name replaces them.
#[tokio::test(start_paused = true)]
async fn orphans_of_a_deleted_function_are_replaced() {
    let mut world = World::new(0);
    world.step(&Step::Image(1)).await;
    world.step(&Step::Ready(1)).await;
    for (plural, name) in
        [("deployments", "hello-00001"), ("controllerrevisions", "hello-00001"), ("services", "hello")]
    {
        world.api.edit(plural, name, |object| object["metadata"]["ownerReferences"] = json!(null));
    }
    world.api.remove("functions", "hello");
    world.turns(1).await;
    world.perform(&Step::Image(2));
    world.turns(4).await;
    let uid = world.api.get("functions", "hello").unwrap()["metadata"]["uid"].clone();
    for (plural, name) in
        [("deployments", "hello-00001"), ("controllerrevisions", "hello-00001"), ("services", "hello")]
    {
        let object = world.api.get(plural, name).unwrap();
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], uid, "{plural}");
    }
    world.perform(&Step::Ready(1));
    world.turns(2).await;
    assert_eq!(world.condition(READY).0, "True", "{}", world.condition(READY).2);
    // An object with another label is not ours to delete.
    world.api.edit("services", "hello", |object| {
        object["metadata"]["ownerReferences"] = json!(null);
        object["metadata"]["labels"] = json!({"app": "hello"});
    });
    let before = world.api.get("services", "hello");
    world.turns(3).await;
    assert_eq!(world.condition(ROUTABLE).1, "NameConflict");
    assert_eq!(world.api.get("services", "hello"), before);
}

/// A leader that was suspended must not overwrite what its successor decided.
#[tokio::test(start_paused = true)]
async fn an_outdated_status_is_not_written() {
    let mut world = World::new(0);
    world.step(&Step::Image(1)).await;
    world.sync();
    world.api.edit("functions", "hello", |function| {
        function["status"]["traffic"] = json!([{"revision": "hello-00001", "percent": 100, "tag": "of-the-successor"}]);
    });
    let written = world.api.get("functions", "hello");
    // The cache has the Deployment, and not yet the Function.
    world.perform(&Step::Ready(1));
    let deployments = world.api.all("deployments");
    super::world::fill(&world.context.caches.deployments, deployments);
    crate::function::reconcile(std::sync::Arc::clone(&world.context), super::world::key()).await;
    assert_eq!(world.api.get("functions", "hello"), written);
    world.turns(1).await;
    assert_eq!(world.condition(READY).0, "True", "with a current cache it is written");
}

/// Another controller, or another installation of Rouse, that changes an object back at once.
#[rstest]
#[case::deployment("deployments", "hello-00001")]
#[case::service("services", "hello")]
#[tokio::test(start_paused = true)]
async fn repairs_that_are_undone_are_backed_off_and_reported(#[case] plural: &'static str, #[case] name: &str) {
    let mut world = World::new(0);
    world.step(&Step::Image(1)).await;
    world.step(&Step::Ready(1)).await;
    let before = world.api.writes();
    let managers = json!([
        {"manager": "rouse-operator", "operation": "Update", "time": "2026-01-01T00:00:00Z"},
        {"manager": "platform-controller", "operation": "Update", "time": "2026-01-01T00:00:01Z"},
        {"manager": "kube-controller-manager", "operation": "Update", "time": "2026-01-01T00:00:02Z", "subresource": "status"},
    ]);
    // One reconcile each second for ten minutes, as events of the other controller trigger them.
    for _ in 0..600 {
        world.api.edit(plural, name, |object| {
            object["metadata"]["managedFields"] = managers.clone();
            match plural {
                "services" => object["spec"]["externalName"] = json!("other.example.org"),
                _ => object["spec"]["progressDeadlineSeconds"] = json!(1),
            }
        });
        world.turns(1).await;
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
    }
    let writes = world.api.writes() - before;
    assert!((5..=16).contains(&writes), "{writes} writes in ten minutes");
    let (status, reason, message) = world.condition(SYNCED);
    assert_eq!((status.as_str(), reason.as_str()), ("False", "Drifting"));
    assert!(message.contains("platform-controller") && message.contains(name), "{message}");
    assert_eq!(world.condition(READY).0, "True");
    // The other controller stops. The next repair lasts.
    tokio::time::advance(std::time::Duration::from_secs(3601)).await;
    world.turns(2).await;
    assert_eq!(world.condition(SYNCED).0, "True", "{}", world.condition(SYNCED).2);
}
