//! Conditions of a Function, computed from its state. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use rouse_crds::{
    conditions::{
        ACTIVE, ALL_GOOD, IDLE, INVALID, NOT_STARTED, READY, REVISION_READY, ROLLOUT_ABORTED, ROUTABLE, ROUTED,
        RUNNING, STARTING, VERIFIED_READY, Wanted,
    },
    function::FunctionStatus,
    pod::PodFailure,
};

use super::traffic::Missing;
use crate::{
    function::{apply::Conflict, dereference::Kind},
    hosts::LostHost,
    spec::invalid::Invalid,
    workloads::observe::RevisionState,
};

/// Reason: an object with a name that the Function needs exists and has another owner.
pub const NAME_CONFLICT: &str = "NameConflict";
/// Reason of `Routable=False`: `spec.traffic` names a revision that does not exist.
pub const REVISION_MISSING: &str = "RevisionMissing";

/// Reason of a Warning Event: `spec.rollout.onConfigChange` needs a feature that this installation has disabled.
pub const CONFIG_NOT_WATCHED: &str = "ConfigNotWatched";
/// Message of [`CONFIG_NOT_WATCHED`].
pub const CONFIG_NOTICE: &str = "spec.rollout.onConfigChange is NewRevision, but this installation does not watch ConfigMaps and Secrets; set the chart value operator.watchConfig to true.";

/// Inputs of [`decide`].
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Previous status.
    pub former: &'a FunctionStatus,
    /// Validation error of the spec.
    pub invalid: Option<&'a Invalid>,
    /// Objects that exist and have another owner.
    pub conflicts: &'a [Conflict],
    /// Hosts that are not routed to the Function, and why.
    pub lost_hosts: &'a [LostHost],
    /// Revision in `spec.traffic` that does not exist.
    pub missing: Option<&'a Missing>,
    /// Latest revision.
    pub latest: &'a str,
    /// State of the latest revision.
    pub state: &'a RevisionState,
    /// Why its rollout was aborted.
    pub aborted: Option<&'a str>,
    /// Whether its rollout is in progress.
    pub rolling: bool,
    /// Notice that is appended to the message of `Ready=True`.
    pub notice: Option<&'a str>,
    /// Whether `scaling.initial` is 0, so no pod is started for verification.
    pub skip_verification: bool,
    /// Pods of all revisions, desired or existing, whichever is more.
    pub pods: u32,
    /// Why desired pods cannot be created.
    pub pods_refused: Option<&'a PodFailure>,
}

/// Computes the four conditions, `Ready` first.
pub fn decide(inputs: &Inputs<'_>) -> [Wanted; 4] {
    let routable = routable(inputs);
    let revision = revision_ready(inputs);
    [ready(inputs, &routable, &revision), routable, revision, active(inputs)]
}

fn wanted(type_: &'static str, status: Option<bool>, reason: &str, message: impl Into<String>) -> Wanted {
    Wanted { type_, status, reason: reason.to_owned(), message: message.into() }
}

fn conflict(type_: &'static str, conflict: &Conflict) -> Wanted {
    wanted(type_, Some(false), NAME_CONFLICT, conflict.to_string())
}

fn routable(inputs: &Inputs<'_>) -> Wanted {
    if let Some(lost) = inputs.lost_hosts.first() {
        return wanted(ROUTABLE, Some(false), lost.reason, lost.to_string());
    }
    if let Some(missing) = inputs.missing {
        return wanted(ROUTABLE, Some(false), REVISION_MISSING, missing.to_string());
    }
    if let Some(taken) = inputs.conflicts.iter().find(|c| c.kind == Kind::Service) {
        return conflict(ROUTABLE, taken);
    }
    wanted(ROUTABLE, Some(true), ROUTED, "All hosts are routed to the activators.")
}

fn revision_ready(inputs: &Inputs<'_>) -> Wanted {
    let condition = |status, reason: &str, message: String| wanted(REVISION_READY, status, reason, message);
    if let Some(invalid) = inputs.invalid {
        return condition(Some(false), INVALID, invalid.to_string());
    }
    if let Some(taken) = inputs.conflicts.iter().find(|c| c.kind != Kind::Service) {
        return conflict(REVISION_READY, taken);
    }
    if let Some(why) = inputs.aborted {
        return condition(Some(false), ROLLOUT_ABORTED, why.to_owned());
    }
    let name = inputs.latest;
    if inputs.state.ready > 0 {
        return condition(Some(true), VERIFIED_READY, format!("A pod of {name} became ready."));
    }
    if let Some(failure) = &inputs.state.failure {
        return condition(Some(false), &failure.reason, failure.message.clone());
    }
    // No news from pods: the previous condition of this revision stays, also at zero and while the next pod starts.
    if let Some(former) = previous_condition(inputs) {
        let status = match former.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        };
        if status.is_some() && ![INVALID, NAME_CONFLICT, ROLLOUT_ABORTED].contains(&former.reason.as_str()) {
            return condition(status, &former.reason, former.message.clone());
        }
    }
    if inputs.skip_verification && inputs.state.desired == 0 {
        return condition(
            Some(true),
            NOT_STARTED,
            format!("{name} starts with its first request (spec.scaling.initial is 0)."),
        );
    }
    // The previous condition is outdated (an invalid edit was reverted, or traffic goes to named revisions), and no pod
    // is starting.
    if inputs.state.desired == 0 && !inputs.rolling && previous_condition(inputs).is_some() {
        return condition(Some(true), NOT_STARTED, format!("{name} has no pods; the next request starts one."));
    }
    condition(None, STARTING, format!("The first pod of {name} is starting."))
}

fn previous_condition<'a>(inputs: &Inputs<'a>) -> Option<&'a Condition> {
    if inputs.former.latest_revision.as_deref() != Some(inputs.latest) {
        return None;
    }
    inputs.former.conditions.iter().find(|c| c.type_ == REVISION_READY)
}

fn ready(inputs: &Inputs<'_>, routable: &Wanted, revision: &Wanted) -> Wanted {
    if let Some(invalid) = inputs.invalid {
        return wanted(READY, Some(false), INVALID, invalid.to_string());
    }
    let worst = [revision, routable].into_iter().min_by_key(|c| match c.status {
        Some(false) => 0,
        None => 1,
        Some(true) => 2,
    });
    match worst {
        Some(bad) if bad.status != Some(true) => wanted(READY, bad.status, &bad.reason, bad.message.clone()),
        _ => {
            let notice = inputs.notice.map_or_else(String::new, |notice| format!(" {notice}"));
            wanted(READY, Some(true), ALL_GOOD, format!("The Function serves requests.{notice}"))
        }
    }
}

fn active(inputs: &Inputs<'_>) -> Wanted {
    if let Some(refused) = inputs.pods_refused {
        // Unlike `RevisionReady`, this holds only while pods are requested, not at zero. Activators read it.
        wanted(ACTIVE, Some(false), &refused.reason, refused.message.clone())
    } else if inputs.pods > 0 {
        wanted(ACTIVE, Some(true), RUNNING, "The Function has pods.")
    } else {
        wanted(ACTIVE, Some(false), IDLE, "Scaled to zero: no requests.")
    }
}

#[cfg(test)]
mod tests;
