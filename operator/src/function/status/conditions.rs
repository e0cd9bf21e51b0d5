//! What is to be said of a Function. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use rouse_crds::{
    conditions::{
        ACTIVE, ALL_GOOD, IDLE, INVALID, NOT_STARTED, PROVEN, READY, REVISION_READY, ROLLOUT_ABORTED, ROUTABLE, ROUTED,
        RUNNING, STARTING, Wanted,
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

/// Reason: an object that the Function needs exists already and belongs to something else.
pub const NAME_TAKEN: &str = "NameTaken";
/// Reason of `Routable=False`: `spec.traffic` names a revision that does not exist.
pub const REVISION_MISSING: &str = "RevisionMissing";

/// Reason of a warning: `spec.rollout.onConfigChange` asks for what this installation does not do.
pub const CONFIG_NOT_WATCHED: &str = "ConfigNotWatched";
/// What is said of that.
pub const CONFIG_NOTICE: &str = "spec.rollout.onConfigChange is NewRevision, but this installation of Rouse does not watch ConfigMaps and Secrets: set the chart's value operator.watchConfig to true.";

/// What the conditions are decided from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What was said before.
    pub former: &'a FunctionStatus,
    /// What is wrong with the spec.
    pub invalid: Option<&'a Invalid>,
    /// Names that are taken.
    pub conflicts: &'a [Conflict],
    /// Hosts that do not lead to it, and why.
    pub lost_hosts: &'a [LostHost],
    /// A revision that `spec.traffic` names and that is not there.
    pub missing: Option<&'a Missing>,
    /// The newest revision.
    pub latest: &'a str,
    /// Its state.
    pub state: &'a RevisionState,
    /// Why its roll-out was ended.
    pub aborted: Option<&'a str>,
    /// Whether its roll-out is under way.
    pub rolling: bool,
    /// Something that the user should know though all is well.
    pub notice: Option<&'a str>,
    /// Whether `scaling.initial` is 0: it is not started to be proven.
    pub unproven_is_fine: bool,
    /// Pods, over all revisions: wanted, and there.
    pub pods: u32,
    /// Why pods that are wanted cannot be made now.
    pub pods_refused: Option<&'a PodFailure>,
}

/// The four conditions, `Ready` first.
pub fn decide(inputs: &Inputs<'_>) -> [Wanted; 4] {
    let routable = routable(inputs);
    let revision = revision_ready(inputs);
    [ready(inputs, &routable, &revision), routable, revision, active(inputs)]
}

fn wanted(type_: &'static str, status: Option<bool>, reason: &str, message: impl Into<String>) -> Wanted {
    Wanted { type_, status, reason: reason.to_owned(), message: message.into() }
}

fn conflict(type_: &'static str, conflict: &Conflict) -> Wanted {
    wanted(type_, Some(false), NAME_TAKEN, conflict.to_string())
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
    wanted(ROUTABLE, Some(true), ROUTED, "Its hosts lead to it.")
}

fn revision_ready(inputs: &Inputs<'_>) -> Wanted {
    let said = |status, reason: &str, message: String| wanted(REVISION_READY, status, reason, message);
    if let Some(invalid) = inputs.invalid {
        return said(Some(false), INVALID, invalid.to_string());
    }
    if let Some(taken) = inputs.conflicts.iter().find(|c| c.kind != Kind::Service) {
        return conflict(REVISION_READY, taken);
    }
    if let Some(why) = inputs.aborted {
        return said(Some(false), ROLLOUT_ABORTED, why.to_owned());
    }
    let name = inputs.latest;
    if inputs.state.ready > 0 {
        return said(Some(true), PROVEN, format!("A pod of {name} has been ready."));
    }
    if let Some(failure) = &inputs.state.failure {
        return said(Some(false), &failure.reason, failure.message.clone());
    }
    // No pod says anything new: what was last said of this revision holds on, also at zero and while the next try is on its way.
    if let Some(former) = former_of_this_revision(inputs) {
        let status = match former.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        };
        if status.is_some() && ![INVALID, NAME_TAKEN, ROLLOUT_ABORTED].contains(&former.reason.as_str()) {
            return said(status, &former.reason, former.message.clone());
        }
    }
    if inputs.unproven_is_fine && inputs.state.desired == 0 {
        return said(
            Some(true),
            NOT_STARTED,
            format!("{name} is started by its first call (spec.scaling.initial is 0)."),
        );
    }
    // What was last said does not hold any more (a wrong edit was taken back, or calls are led elsewhere by name), and no pod
    // is on its way.
    if inputs.state.desired == 0 && !inputs.rolling && former_of_this_revision(inputs).is_some() {
        return said(Some(true), NOT_STARTED, format!("{name} has no pods; its next call starts one."));
    }
    said(None, STARTING, format!("The first pod of {name} is on its way."))
}

fn former_of_this_revision<'a>(inputs: &Inputs<'a>) -> Option<&'a Condition> {
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
            wanted(READY, Some(true), ALL_GOOD, format!("It answers calls.{notice}"))
        }
    }
}

fn active(inputs: &Inputs<'_>) -> Wanted {
    if let Some(refused) = inputs.pods_refused {
        // Unlike what is said of the revision, this holds for the present try alone: at zero it is over. Activators read it.
        wanted(ACTIVE, Some(false), &refused.reason, refused.message.clone())
    } else if inputs.pods > 0 {
        wanted(ACTIVE, Some(true), RUNNING, "It has pods.")
    } else {
        wanted(ACTIVE, Some(false), IDLE, "Nobody calls it, so it has no pods.")
    }
}

#[cfg(test)]
mod tests;
