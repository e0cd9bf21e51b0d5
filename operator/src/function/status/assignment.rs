//! Traffic assignment: the state of the rollout, and the traffic split that follows from it and from `spec.traffic`.
//! Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use rouse_crds::{
    Function,
    conditions::REVISION_READY,
    function::{FunctionStatus, RolloutSpec, RolloutStatus, TrafficStatus, Visibility},
};

use super::{traffic, transitions::has_condition};
use crate::{
    cluster::refusal::Refusal,
    function::{
        apply::Applied,
        build::Resources,
        dereference::Dereferenced,
        rollout::{self, Split, pods},
    },
    hosts::Names,
    spec::invalid::Invalid,
    workloads::{observe::RevisionState, outcomes::RequestStats},
};

/// Inputs of [`decide`].
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The Function.
    pub function: &'a Function,
    /// Previous status.
    pub former: &'a FunctionStatus,
    /// Objects of the Function, from the caches.
    pub found: &'a Dereferenced,
    /// Objects that were just written.
    pub applied: &'a Result<Resources<Applied>, Invalid>,
    /// Newest revision; empty if none exists yet.
    pub latest: &'a str,
    /// State of the newest revision.
    pub state: &'a RevisionState,
    /// Hosts and URLs.
    pub names: &'a Names,
    /// Requests of the revision that is rolled out, since the start of its step.
    pub stats: &'a RequestStats,
    /// Current time.
    pub now: Timestamp,
}

/// Traffic split and state of the rollout.
#[derive(Debug)]
pub struct TrafficAssignment {
    /// `status.traffic`.
    pub traffic: Vec<TrafficStatus>,
    /// `status.rollout`.
    pub rollout: Option<RolloutStatus>,
    /// Revision in `spec.traffic` that does not exist.
    pub missing: Option<traffic::Missing>,
    /// Time after which to reconcile again without an event.
    pub requeue_after: Option<Duration>,
}

/// Computes the traffic assignment.
pub fn decide(inputs: &Inputs<'_>) -> TrafficAssignment {
    let Inputs { function, former, found, applied, latest, .. } = *inputs;
    if latest.is_empty() {
        let (traffic, rollout) = (former.traffic.clone(), former.rollout.clone());
        return TrafficAssignment { traffic, rollout, missing: None, requeue_after: None };
    }
    let existing = existing(former, found, applied);
    let exists = |name: &str| existing.iter().any(|there| there == name);
    let wanted = function.spec.traffic.as_deref().unwrap_or_default();
    let stable = rollout::stable(former, function.spec.routes_to_latest(), exists);
    let mut named = wanted.iter().filter_map(|target| target.revision.as_ref());
    let next = match function.spec.latest_percent() {
        // While `spec.traffic` names a missing revision, the traffic split does not change, so the rollout is on hold.
        _ if named.any(|name| !existing.contains(name)) => rollout::Next {
            rollout: former.rollout.clone(),
            split: Split::all(stable.as_deref().unwrap_or(latest)),
            requeue_after: None,
        },
        Some(percent) => advance_rollout(inputs, stable.as_deref(), percent),
        // Without traffic for the latest revision there is no rollout.
        None => {
            rollout::Next { rollout: None, split: Split::all(stable.as_deref().unwrap_or(latest)), requeue_after: None }
        }
    };
    let Split { from, to } = &next.split;
    let split = Split { from: from.clone(), to: to.clone().filter(|(to, _)| exists(to)) };
    let split = Some(&split).filter(|split| exists(&split.from));
    let (mut traffic, missing) =
        traffic::resolve(&traffic::Inputs { wanted, former: &former.traffic, split, existing: &existing });
    for entry in &mut traffic {
        entry.url = entry.tag.as_deref().and_then(|tag| url(inputs, tag));
    }
    TrafficAssignment { traffic, rollout: next.rollout, missing, requeue_after: next.requeue_after }
}

/// Returns the revisions that have a Deployment, in order. Traffic goes to no other revision: nothing would answer, and what
/// prevents the Deployment of the first revision may have been fixed in the second.
///
/// A revision that had traffic keeps it while the API server cannot say whether its Deployment may be recreated.
fn existing(
    former: &FunctionStatus,
    found: &Dereferenced,
    applied: &Result<Resources<Applied>, Invalid>,
) -> Vec<String> {
    let mut existing: Vec<String> = found.workloads.deployments.keys().cloned().collect();
    if let Ok(Resources { state, .. }) = applied {
        existing.extend(state.created.iter().cloned());
        let undecided =
            |name: &str| state.create_failure(name).is_some_and(|error| error.refusal() == Refusal::Temporary);
        let had_traffic = former.traffic.iter().map(|entry| &entry.revision);
        existing.extend(had_traffic.filter(|name| undecided(name)).cloned());
    }
    existing.sort();
    existing.dedup();
    existing
}

fn advance_rollout(inputs: &Inputs<'_>, stable: Option<&str>, percent: u32) -> rollout::Next {
    let Inputs { function, former, found, applied, latest, state, .. } = *inputs;
    let (spec, scaling) = (&function.spec, function.spec.scaling());
    let ready = stable.and_then(|name| found.workloads.deployments.get(name)).map_or(0, |d| d.ready());
    let stable_pods =
        stable.map_or(0, |name| pods::serving_latest(spec.traffic.as_deref().unwrap_or_default(), name, ready));
    let refused = applied.as_ref().is_ok_and(|resources| resources.state.is_blocked(latest));
    let of_latest = former.latest_revision.as_deref() == Some(latest);
    // Without traffic and without verification pods, its first request verifies it.
    let skip_verification = scaling.initial() == 0
        && stable_pods == 0
        && state.failure.is_none()
        && !(of_latest && has_condition(former, REVISION_READY, "False"));
    let mut wanted: RolloutSpec = spec.rollout();
    if percent == 0 {
        // Without traffic there are no steps.
        wanted.steps = None;
    }
    rollout::next(&rollout::Inputs {
        spec: &wanted,
        former: former.rollout.as_ref(),
        stable,
        latest,
        verified: !refused
            && (state.ready > 0 || (of_latest && has_condition(former, REVISION_READY, "True")) || skip_verification),
        state,
        stable_pods,
        verification_pods: scaling.initial(),
        max: scaling.max(),
        cold_start: spec.timeouts().cold_start(),
        stats: inputs.stats,
        now: inputs.now,
    })
}

/// URL of a tag on the ingress, if the ingress serves it.
fn url(inputs: &Inputs<'_>, tag: &str) -> Option<String> {
    let function = inputs.function;
    let public = function.spec.visibility() == Visibility::Public;
    let host = inputs.names.hosts.tagged(tag, &function.name_any(), &function.namespace().unwrap_or_default());
    let lost = inputs.found.lost_hosts.iter().any(|lost| lost.host.as_deref() == Some(&host));
    (public && !lost).then(|| inputs.names.url(&host))
}
