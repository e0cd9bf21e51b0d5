//! Events and log lines for transitions of a Function's status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use rouse_crds::{
    Function,
    conditions::{ACTIVE, NOT_STARTED, READY, REVISION_READY, ROUTABLE, SYNCED},
    function::{FunctionStatus, RolloutPhase},
};

use super::conditions::{CONFIG_NOT_WATCHED, CONFIG_NOTICE};
use crate::{cluster::key::FunctionKey, function::Context};

/// Reason of an Event: a rollout took its next step.
const ROLLOUT_PROGRESSING: &str = "RolloutProgressing";
/// Reason of an Event: all traffic moved to the new revision.
const ROLLOUT_COMPLETED: &str = "RolloutCompleted";

/// Returns the condition of this type.
pub fn condition<'a>(status: &'a FunctionStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

/// Returns whether a condition has this status.
pub fn has_condition(status: &FunctionStatus, type_: &str, value: &str) -> bool {
    condition(status, type_).is_some_and(|c| c.status == value)
}

fn has_reason(status: &FunctionStatus, type_: &str, reason: &str) -> bool {
    condition(status, type_).is_some_and(|c| c.reason == reason)
}

/// Records an Event for each transition between two statuses.
pub async fn record(
    context: &Context,
    key: &FunctionKey,
    function: &Function,
    former: &FunctionStatus,
    status: &FunctionStatus,
) {
    let reference = function.object_ref(&());
    if let Some((reason, note)) = of_rollout(former, status) {
        tracing::info!(function = %key, reason, detail = note, "Rollout changed the traffic split");
        context.events.normal(&reference, reason, &note).await;
    }
    let has_notice =
        |status: &FunctionStatus| condition(status, READY).is_some_and(|ready| ready.message.contains(CONFIG_NOTICE));
    if has_notice(status) && !has_notice(former) {
        context.events.warning(&reference, CONFIG_NOT_WATCHED, CONFIG_NOTICE).await;
    }
    for now in &status.conditions {
        let before = condition(former, &now.type_);
        if before.is_some_and(|b| b.status == now.status && b.reason == now.reason) {
            continue;
        }
        match (now.type_.as_str(), now.status.as_str()) {
            // A revision that was never started has not been verified.
            (READY, "True") if !has_reason(status, REVISION_READY, NOT_STARTED) => {
                tracing::info!(function = %key, revision = status.latest_revision, "Function is ready");
                let url = status.url.as_ref().or_else(|| status.address.as_ref().map(|a| &a.url));
                let note = format!("Serving requests at {}", url.map_or("", String::as_str));
                context.events.normal(&reference, "Ready", &note).await;
            }
            (REVISION_READY | ROUTABLE, "False") => {
                tracing::info!(function = %key, condition = now.type_, reason = now.reason, detail = now.message, "Condition became False");
                context.events.warning(&reference, &now.reason, &now.message).await;
            }
            // What is not ready has an Event of its own.
            (SYNCED, "False") if !has_condition(status, READY, "False") => {
                tracing::info!(function = %key, condition = now.type_, reason = now.reason, detail = now.message, "Condition became False");
                context.events.warning(&reference, &now.reason, &now.message).await;
            }
            (ACTIVE, _) => tracing::debug!(function = %key, reason = now.reason, "Condition Active changed"),
            _ => {}
        }
    }
}

/// Reason and note of the Event for a rollout step. An abort is recorded with its condition instead.
fn of_rollout(former: &FunctionStatus, status: &FunctionStatus) -> Option<(&'static str, String)> {
    let step = |status: &FunctionStatus| {
        let rollout = status.rollout.as_ref().filter(|r| r.phase == RolloutPhase::Progressing && r.percent > 0)?;
        Some((rollout.revision.clone(), rollout.percent, rollout.from.clone()))
    };
    match (step(former), step(status)) {
        (before, Some(now)) if before.as_ref() != Some(&now) => {
            let (revision, percent, from) = now;
            Some((ROLLOUT_PROGRESSING, format!("{revision} receives {percent}% of the traffic, {from} the rest")))
        }
        (Some((revision, ..)), None) if status.rollout.is_none() => {
            let all = status.traffic.iter().filter(|t| t.latest).all(|t| t.revision == revision);
            all.then(|| (ROLLOUT_COMPLETED, format!("{revision} receives all traffic of the latest revision")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::function::{RolloutStatus, TrafficStatus};

    fn step(percent: i32, phase: RolloutPhase) -> FunctionStatus {
        let rollout =
            RolloutStatus { revision: "f-2".into(), from: "f-1".into(), percent, phase, ..RolloutStatus::default() };
        FunctionStatus { rollout: Some(rollout), ..FunctionStatus::default() }
    }

    #[test]
    fn records_each_rollout_step_once() {
        let (verifying, ten) = (step(0, RolloutPhase::Progressing), step(10, RolloutPhase::Progressing));
        let done = |revision: &str| FunctionStatus {
            traffic: vec![TrafficStatus {
                revision: revision.into(),
                percent: 100,
                latest: true,
                ..TrafficStatus::default()
            }],
            ..FunctionStatus::default()
        };
        assert_eq!(of_rollout(&done("f-1"), &verifying), None);
        let event = of_rollout(&verifying, &ten).unwrap();
        assert_eq!(event, (ROLLOUT_PROGRESSING, "f-2 receives 10% of the traffic, f-1 the rest".to_owned()));
        assert_eq!(of_rollout(&ten, &ten), None);
        let event = of_rollout(&ten, &done("f-2")).unwrap();
        assert_eq!(event, (ROLLOUT_COMPLETED, "f-2 receives all traffic of the latest revision".to_owned()));
        assert_eq!(of_rollout(&ten, &step(0, RolloutPhase::Aborted)), None);
        assert_eq!(of_rollout(&ten, &done("f-1")), None, "spec.traffic names another revision");
    }
}
