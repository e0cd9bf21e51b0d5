use super::*;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use rouse_crds::{
    conditions::{HOST_CONFLICT, POD_CREATION_FAILED, set},
    pod::PodFailure,
};
use rstest::rstest;
use std::time::Duration;

const LATEST: &str = "f-00002";

fn state(desired: u32, ready: u32, failure: Option<&str>) -> RevisionState {
    let failure = failure.map(|reason| PodFailure { reason: reason.into(), message: "why".into() });
    RevisionState { desired, ready, failure, ..RevisionState::default() }
}

/// Previous status with a condition of `revision`.
fn former(revision: &str, status: Option<bool>, reason: &str) -> FunctionStatus {
    let mut conditions = vec![];
    set(&mut conditions, &wanted(REVISION_READY, status, reason, "previous message"), 1, &Time(Timestamp::UNIX_EPOCH));
    FunctionStatus { latest_revision: Some(revision.into()), conditions, ..FunctionStatus::default() }
}

static NOTHING: Applied =
    Applied { conflicts: vec![], failures: vec![], made: None, drifting: vec![], repair_at: None, created: vec![] };

/// Inputs of a Function without problems.
fn inputs<'a>(former: &'a FunctionStatus, state: &'a RevisionState) -> Inputs<'a> {
    Inputs {
        former,
        invalid: None,
        applied: Some(&NOTHING),
        lost_hosts: &[],
        missing: None,
        latest: LATEST,
        exists: true,
        state,
        aborted: None,
        rolling: false,
        notice: None,
        skip_verification: false,
        pods: state.desired,
        pods_refused: None,
        shortage: None,
        max_reached: None,
    }
}

fn decided(former: &FunctionStatus, state: &RevisionState, skip_verification: bool) -> [(Option<bool>, String); 6] {
    let inputs = Inputs { skip_verification, ..inputs(former, state) };
    decide(&inputs).map(|c| (c.status, c.reason))
}

#[rstest]
#[case::new(FunctionStatus::default(), state(1, 0, None), false, None, STARTING)]
#[case::ready(FunctionStatus::default(), state(1, 1, None), false, Some(true), VERIFIED_READY)]
#[case::not_started(FunctionStatus::default(), state(0, 0, None), true, Some(true), NOT_STARTED)]
#[case::fails(FunctionStatus::default(), state(1, 0, Some("ErrImagePull")), false, Some(false), "ErrImagePull")]
#[case::verified_at_zero(
    former(LATEST, Some(true), VERIFIED_READY),
    state(0, 0, None),
    false,
    Some(true),
    VERIFIED_READY
)]
#[case::failed_at_zero(
    former(LATEST, Some(false), "ErrImagePull"),
    state(0, 0, None),
    false,
    Some(false),
    "ErrImagePull"
)]
#[case::failed_and_retried(
    former(LATEST, Some(false), "ErrImagePull"),
    state(1, 0, None),
    false,
    Some(false),
    "ErrImagePull"
)]
#[case::recovered(former(LATEST, Some(false), "ErrImagePull"), state(1, 1, None), false, Some(true), VERIFIED_READY)]
#[case::verified_and_now_fails(
    former(LATEST, Some(true), VERIFIED_READY),
    state(1, 0, Some("CrashLoopBackOff")),
    false,
    Some(false),
    "CrashLoopBackOff"
)]
#[case::another_revision_failed(
    former("f-00001", Some(false), "ErrImagePull"),
    state(1, 0, None),
    false,
    None,
    STARTING
)]
#[case::was_invalid(former(LATEST, Some(false), INVALID), state(1, 0, None), false, None, STARTING)]
#[case::first_request_of_a_revision_that_was_not_started(
    former(LATEST, Some(true), NOT_STARTED),
    state(1, 0, None),
    true,
    Some(true),
    NOT_STARTED
)]
#[case::lacked_capacity_at_zero(
    former(LATEST, Some(false), "Unschedulable"),
    state(0, 0, None),
    false,
    Some(true),
    NOT_STARTED
)]
#[case::lacked_capacity_and_starts(
    former(LATEST, Some(false), POD_CREATION_FAILED),
    state(1, 0, None),
    false,
    None,
    STARTING
)]
#[case::lacks_capacity_for_now(
    former(LATEST, Some(true), VERIFIED_READY),
    RevisionState { transient: Some(Duration::from_secs(30)), ..state(1, 0, Some("Unschedulable")) },
    false,
    None,
    "Unschedulable"
)]
fn revision_ready(
    #[case] former: FunctionStatus,
    #[case] state: RevisionState,
    #[case] skip_verification: bool,
    #[case] status: Option<bool>,
    #[case] reason: &str,
) {
    let [ready, _, revision, ..] = decided(&former, &state, skip_verification);
    assert_eq!(revision, (status, reason.to_owned()));
    assert_eq!(ready.0, status, "Ready follows");
}

#[test]
fn zero_is_healthy() {
    let [ready, routable, revision, active, ..] =
        decided(&former(LATEST, Some(true), VERIFIED_READY), &state(0, 0, None), false);
    assert_eq!(ready, (Some(true), ALL_GOOD.to_owned()));
    assert_eq!(routable, (Some(true), ROUTED.to_owned()));
    assert_eq!(revision, (Some(true), VERIFIED_READY.to_owned()));
    assert_eq!(active, (Some(false), IDLE.to_owned()));
}

#[test]
fn a_lost_host_names_its_owner() {
    let former = FunctionStatus::default();
    let lost =
        [LostHost { host: None, reason: HOST_CONFLICT, message: "shop.example.org belongs to other/shop".into() }];
    let state = state(1, 1, None);
    let inputs = Inputs { lost_hosts: &lost, ..inputs(&former, &state) };
    let [ready, routable, ..] = decide(&inputs);
    assert_eq!((routable.status, routable.reason.as_str()), (Some(false), HOST_CONFLICT));
    assert!(routable.message.contains("shop.example.org") && routable.message.contains("other/shop"));
    assert_eq!((ready.status, ready.reason.as_str()), (Some(false), HOST_CONFLICT));
}

#[test]
fn an_invalid_spec_is_reported() {
    let former = former(LATEST, Some(true), VERIFIED_READY);
    let invalid = Invalid::new("spec.podTemplate.spec.x", "is no field");
    let state = state(1, 1, None);
    let inputs = Inputs { invalid: Some(&invalid), ..inputs(&former, &state) };
    let [ready, _, revision, active, ..] = decide(&inputs);
    assert_eq!((ready.status, ready.reason.as_str()), (Some(false), INVALID));
    assert_eq!((revision.status, revision.reason.as_str()), (Some(false), INVALID));
    assert!(ready.message.contains("spec.podTemplate.spec.x"));
    assert_eq!(active.status, Some(true));
}

#[test]
fn pods_that_cannot_be_made_are_told_as_long_as_they_are_wanted() {
    let former = former(LATEST, Some(false), POD_CREATION_FAILED);
    let refused = PodFailure { reason: POD_CREATION_FAILED.into(), message: "exceeded quota".into() };
    let state = state(1, 0, Some(POD_CREATION_FAILED));
    let mut inputs = Inputs { pods_refused: Some(&refused), ..inputs(&former, &state) };
    let [_, _, _, active, ..] = decide(&inputs);
    assert_eq!((active.status, active.reason.as_str()), (Some(false), POD_CREATION_FAILED));
    assert_eq!(active.message, "exceeded quota");
    // After the next wake it is unknown whether pods can be created: the condition of the revision stays, this one does
    // not.
    inputs.pods_refused = None;
    let [_, _, revision, active, ..] = decide(&inputs);
    assert_eq!((revision.status, active.reason.as_str()), (Some(false), RUNNING));
}

#[test]
fn a_notice_stands_beside_what_is_well() {
    let former = FunctionStatus::default();
    let state = state(1, 1, None);
    let mut inputs = Inputs { notice: Some(CONFIG_NOTICE), ..inputs(&former, &state) };
    let [ready, ..] = decide(&inputs);
    assert_eq!(ready.status, Some(true));
    assert!(ready.message.contains("operator.watchConfig"));
    inputs.aborted = Some("it was ended");
    let [ready, _, revision, ..] = decide(&inputs);
    assert_eq!((ready.status, ready.reason.as_str()), (Some(false), ROLLOUT_ABORTED));
    assert_eq!((revision.reason.as_str(), revision.message.as_str()), (ROLLOUT_ABORTED, "it was ended"));
}

#[test]
fn a_shortage_is_reported_beside_ready() {
    let (former, state) = (FunctionStatus::default(), state(3, 1, None));
    let scaled = |inputs: &Inputs<'_>| {
        let [ready, _, _, _, scaled, _] = decide(inputs);
        assert_eq!(ready.status, Some(true), "it serves");
        (scaled.status, scaled.reason)
    };
    let mut inputs = inputs(&former, &state);
    assert_eq!(scaled(&inputs), (Some(true), AS_REQUIRED.to_owned()));
    inputs.max_reached = Some(3);
    assert_eq!(scaled(&inputs), (Some(false), MAX_REACHED.to_owned()));
    let failure = PodFailure { reason: "Unschedulable".into(), message: "why".into() };
    inputs.shortage = Some(&failure);
    assert_eq!(scaled(&inputs), (Some(false), "Unschedulable".to_owned()));
}
