//! Tells users of transitions of a Function: as Events and log lines.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use rouse_crds::{
    Function,
    conditions::{ACTIVE, NOT_STARTED, READY, REVISION_READY, ROUTABLE},
    function::{FunctionStatus, RolloutPhase},
};

use super::conditions::{CONFIG_NOT_WATCHED, CONFIG_NOTICE};
use crate::{cluster::key::FunctionKey, function::Context};

/// The condition of this type.
pub fn condition<'a>(status: &'a FunctionStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

/// Whether a condition was said to hold.
pub fn said(status: &FunctionStatus, type_: &str, what: &str) -> bool {
    condition(status, type_).is_some_and(|c| c.status == what)
}

fn is_because(status: &FunctionStatus, type_: &str, reason: &str) -> bool {
    condition(status, type_).is_some_and(|c| c.reason == reason)
}

/// Tells of what has become another: once for each transition, however often the status is written.
pub async fn tell(
    context: &Context,
    key: &FunctionKey,
    function: &Function,
    former: &FunctionStatus,
    status: &FunctionStatus,
) {
    let reference = function.object_ref(&());
    if let Some(note) = of_rollout(former, status) {
        tracing::info!(function = %key, detail = note, "A roll-out goes on");
        context.events.normal(&reference, "Rollout", &note).await;
    }
    let noticed =
        |status: &FunctionStatus| condition(status, READY).is_some_and(|ready| ready.message.contains(CONFIG_NOTICE));
    if noticed(status) && !noticed(former) {
        context.events.warning(&reference, CONFIG_NOT_WATCHED, CONFIG_NOTICE).await;
    }
    for now in &status.conditions {
        let before = condition(former, &now.type_);
        if before.is_some_and(|b| b.status == now.status && b.reason == now.reason) {
            continue;
        }
        match (now.type_.as_str(), now.status.as_str()) {
            // One that has not been started has nothing to tell yet.
            (READY, "True") if !is_because(status, REVISION_READY, NOT_STARTED) => {
                tracing::info!(function = %key, revision = status.latest_revision, "Function is ready");
                let url = status.url.as_ref().or_else(|| status.address.as_ref().map(|a| &a.url));
                let note = format!("Answers calls at {}", url.map_or("", String::as_str));
                context.events.normal(&reference, "Ready", &note).await;
            }
            (REVISION_READY | ROUTABLE, "False") => {
                tracing::info!(function = %key, condition = now.type_, reason = now.reason, detail = now.message, "Function has a problem");
                context.events.warning(&reference, &now.reason, &now.message).await;
            }
            (ACTIVE, _) => tracing::debug!(function = %key, reason = now.reason, "Function went to or left zero"),
            _ => {}
        }
    }
}

/// What a roll-out in steps has come to. That it was ended is told with the condition.
fn of_rollout(former: &FunctionStatus, status: &FunctionStatus) -> Option<String> {
    let share = |status: &FunctionStatus| {
        let rollout = status.rollout.as_ref().filter(|r| r.phase == RolloutPhase::Progressing && r.percent > 0)?;
        Some((rollout.revision.clone(), rollout.percent, rollout.from.clone()))
    };
    match (share(former), share(status)) {
        (before, Some(now)) if before.as_ref() != Some(&now) => {
            let (revision, percent, from) = now;
            Some(format!("{revision} gets {percent}% of the calls to the latest revision, {from} the others"))
        }
        (Some((revision, ..)), None) if status.rollout.is_none() => {
            let all = status.traffic.iter().filter(|t| t.latest).all(|t| t.revision == revision);
            all.then(|| format!("{revision} gets all calls to the latest revision"))
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
    fn each_step_is_told_once() {
        let (proving, ten) = (step(0, RolloutPhase::Progressing), step(10, RolloutPhase::Progressing));
        let done = |revision: &str| FunctionStatus {
            traffic: vec![TrafficStatus {
                revision: revision.into(),
                percent: 100,
                latest: true,
                ..TrafficStatus::default()
            }],
            ..FunctionStatus::default()
        };
        assert_eq!(of_rollout(&done("f-1"), &proving), None);
        let note = of_rollout(&proving, &ten).unwrap();
        assert_eq!(note, "f-2 gets 10% of the calls to the latest revision, f-1 the others");
        assert_eq!(of_rollout(&ten, &ten), None);
        assert_eq!(of_rollout(&ten, &done("f-2")).unwrap(), "f-2 gets all calls to the latest revision");
        assert_eq!(of_rollout(&ten, &step(0, RolloutPhase::Aborted)), None);
        assert_eq!(of_rollout(&ten, &done("f-1")), None, "somebody named another one");
    }
}
