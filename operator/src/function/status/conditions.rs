//! Conditions of a Function, computed from its state. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use rouse_crds::{
    conditions::{
        ACTIVE, ALL_GOOD, AS_REQUIRED, DRIFTING, IDLE, INVALID, MAX_REACHED, NAME_CONFLICT, NOT_STARTED, READY,
        REJECTED, REVISION_READY, ROLLOUT_ABORTED, ROUTABLE, ROUTED, RUNNING, SCALED, STARTING, SYNCED, UP_TO_DATE,
        VERIFIED_READY, WRITE_FAILED, Wanted,
    },
    function::FunctionStatus,
    pod::{Cause, PodFailure},
};

use super::traffic::Missing;
use crate::{
    cluster::refusal::Refusal,
    function::{
        apply::{self, Applied, Conflict},
        dereference::Kind,
    },
    hosts::LostHost,
    spec::invalid::Invalid,
    workloads::observe::RevisionState,
};

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
    /// Result of the writes; `None` if the spec is invalid.
    pub applied: Option<&'a Applied>,
    /// Hosts that are not routed to the Function, and why.
    pub lost_hosts: &'a [LostHost],
    /// Revision in `spec.traffic` that does not exist.
    pub missing: Option<&'a Missing>,
    /// Latest revision.
    pub latest: &'a str,
    /// Whether the latest revision has a Deployment.
    pub exists: bool,
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
    /// Why a revision has fewer pods than desired.
    pub shortage: Option<&'a PodFailure>,
    /// `scaling.max`, if it limits the number of pods.
    pub max_reached: Option<u32>,
}

/// Computes all conditions, `Ready` first.
pub fn decide(inputs: &Inputs<'_>) -> [Wanted; 6] {
    let routable = routable(inputs);
    let revision = revision_ready(inputs);
    [ready(inputs, &routable, &revision), routable, revision, active(inputs), scaled(inputs), synced(inputs)]
}

fn wanted(type_: &'static str, status: Option<bool>, reason: &str, message: impl Into<String>) -> Wanted {
    Wanted { type_, status, reason: reason.to_owned(), message: message.into() }
}

fn conflict(type_: &'static str, conflict: &Conflict) -> Wanted {
    wanted(type_, Some(false), NAME_CONFLICT, conflict.to_string())
}

/// A condition that depends on a write that failed.
fn unwritten(type_: &'static str, error: &apply::Error) -> Wanted {
    match error.refusal() {
        Refusal::Rejected => wanted(type_, Some(false), INVALID, error.to_string()),
        _ => wanted(type_, None, WRITE_FAILED, format!("{error}; will retry")),
    }
}

/// Returns the failure of a write, unless it says nothing about the Function.
fn relevant(failure: Option<&apply::Error>) -> Option<&apply::Error> {
    failure.filter(|error| error.refusal() != Refusal::Terminating)
}

/// All failed writes, the worst first.
fn synced(inputs: &Inputs<'_>) -> Wanted {
    if let Some(invalid) = inputs.invalid {
        return wanted(SYNCED, Some(false), INVALID, invalid.to_string());
    }
    let Some(applied) = inputs.applied else { return wanted(SYNCED, None, STARTING, "Nothing was written yet.") };
    if let Some(taken) = applied.conflicts.first() {
        return conflict(SYNCED, taken);
    }
    let mut failures: Vec<_> = applied.failures.iter().filter_map(|error| relevant(Some(error))).collect();
    failures.sort_by_key(|error| error.refusal() != Refusal::Rejected);
    let Some(worst) = failures.first() else {
        if let Some(drift) = applied.drifting.first() {
            return wanted(SYNCED, Some(false), DRIFTING, drift.to_string());
        }
        return wanted(SYNCED, Some(true), UP_TO_DATE, "All objects of the Function are as its spec asks.");
    };
    let more = match failures.len() - 1 {
        0 => String::new(),
        more => format!(" ({more} more writes failed)"),
    };
    let message = format!("{worst}; will retry{more}");
    match worst.refusal() {
        Refusal::Rejected => wanted(SYNCED, Some(false), REJECTED, message),
        _ => wanted(SYNCED, None, WRITE_FAILED, message),
    }
}

fn routable(inputs: &Inputs<'_>) -> Wanted {
    if let Some(lost) = inputs.lost_hosts.first() {
        return wanted(ROUTABLE, Some(false), lost.reason, lost.to_string());
    }
    if let Some(missing) = inputs.missing {
        return wanted(ROUTABLE, Some(false), REVISION_MISSING, missing.to_string());
    }
    if let Some(taken) = inputs.applied.and_then(|a| a.conflicts.iter().find(|c| c.kind == Kind::Service)) {
        return conflict(ROUTABLE, taken);
    }
    if let Some(failure) = relevant(inputs.applied.and_then(Applied::service_failure)) {
        return unwritten(ROUTABLE, failure);
    }
    wanted(ROUTABLE, Some(true), ROUTED, "All hosts are routed to the activators.")
}

fn revision_ready(inputs: &Inputs<'_>) -> Wanted {
    let condition = |status, reason: &str, message: String| wanted(REVISION_READY, status, reason, message);
    if let Some(invalid) = inputs.invalid {
        return condition(Some(false), INVALID, invalid.to_string());
    }
    let latest = |c: &&Conflict| c.kind != Kind::Service && c.name == inputs.latest;
    if let Some(taken) = inputs.applied.and_then(|a| a.conflicts.iter().find(latest)) {
        return conflict(REVISION_READY, taken);
    }
    if let Some(failure) = relevant(inputs.applied.and_then(|a| a.create_failure(inputs.latest))) {
        return unwritten(REVISION_READY, failure);
    }
    if let Some(why) = inputs.aborted {
        return condition(Some(false), ROLLOUT_ABORTED, why.to_owned());
    }
    let name = inputs.latest;
    if inputs.state.ready > 0 {
        return condition(Some(true), VERIFIED_READY, format!("A pod of {name} became ready."));
    }
    if let Some(failure) = &inputs.state.failure {
        let status = if inputs.state.transient.is_some() { None } else { Some(false) };
        return condition(status, &failure.reason, failure.message.clone());
    }
    // No news from pods: the previous condition of this revision stays, also at zero and while the next pod starts.
    if let Some(former) = previous_condition(inputs) {
        let status = match former.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        };
        // What the cluster lacked says nothing about the revision once its pods are deleted.
        let outdated = [INVALID, NAME_CONFLICT, ROLLOUT_ABORTED].contains(&former.reason.as_str())
            || Cause::of_reason(&former.reason) == Cause::Cluster;
        if status.is_some() && !outdated {
            return condition(status, &former.reason, former.message.clone());
        }
    }
    if !inputs.exists {
        return condition(None, STARTING, format!("{name} is being created."));
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
        None if c.reason != STARTING => 1,
        None => 2,
        Some(true) => 3,
    });
    match worst {
        Some(bad) if bad.status != Some(true) => wanted(READY, bad.status, &bad.reason, bad.message.clone()),
        _ => {
            let notice = inputs.notice.map_or_else(String::new, |notice| format!(" {notice}"));
            wanted(READY, Some(true), ALL_GOOD, format!("The Function serves requests.{notice}"))
        }
    }
}

fn scaled(inputs: &Inputs<'_>) -> Wanted {
    if let Some(PodFailure { reason, message }) = inputs.shortage {
        return wanted(SCALED, Some(false), reason, message.clone());
    }
    if let Some(max) = inputs.max_reached {
        let message = format!(
            "The load needs more than {max} pods (spec.scaling.max), so requests are queued or rejected; raise spec.scaling.max"
        );
        return wanted(SCALED, Some(false), MAX_REACHED, message);
    }
    wanted(SCALED, Some(true), AS_REQUIRED, "The Function has the pods that its load needs, or they are starting.")
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
