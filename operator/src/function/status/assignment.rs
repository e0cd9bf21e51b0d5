//! Who gets the calls: the roll-out, and the shares that follow from it and from `spec.traffic`. Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use rouse_crds::{
    Function,
    conditions::REVISION_READY,
    function::{FunctionStatus, RolloutSpec, RolloutStatus, TrafficStatus, Visibility},
};

use super::{traffic, transitions::said};
use crate::{
    function::{
        apply::Applied,
        build::Resources,
        dereference::{Found, Kind},
        rollout::{self, Split, pods},
    },
    hosts::Names,
    spec::invalid::Invalid,
    workloads::{observe::RevisionState, outcomes::Figures},
};

/// What the shares are decided from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What the user wants.
    pub function: &'a Function,
    /// What was said before.
    pub former: &'a FunctionStatus,
    /// What there is.
    pub found: &'a Found,
    /// What was just written.
    pub applied: &'a Result<Resources<Applied>, Invalid>,
    /// The newest revision; empty if there is none yet.
    pub latest: &'a str,
    /// How it is.
    pub state: &'a RevisionState,
    /// Hosts.
    pub names: &'a Names,
    /// The calls of the revision that is rolled out, since it got its share.
    pub figures: &'a Figures,
    /// The time.
    pub now: Timestamp,
}

/// Who gets the calls now.
#[derive(Debug)]
pub struct Shares {
    /// For the status.
    pub traffic: Vec<TrafficStatus>,
    /// For the status.
    pub rollout: Option<RolloutStatus>,
    /// A revision that the spec names and that is not there.
    pub missing: Option<traffic::Missing>,
    /// After how long to look again though nothing changes.
    pub look_again: Option<Duration>,
}

/// Decides.
pub fn decide(inputs: &Inputs<'_>) -> Shares {
    let Inputs { function, former, found, applied, latest, .. } = *inputs;
    if latest.is_empty() {
        let (traffic, rollout) = (former.traffic.clone(), former.rollout.clone());
        return Shares { traffic, rollout, missing: None, look_again: None };
    }
    let mut existing: Vec<String> = found.workloads.deployments.keys().cloned().collect();
    existing.extend(applied.iter().flat_map(|r| &r.create).map(ResourceExt::name_any));
    existing.sort();
    existing.dedup();
    let wanted = function.spec.traffic.as_deref().unwrap_or_default();
    let called = function.spec.routes_to_latest();
    let stable = rollout::stable(former, called, |name| existing.iter().any(|there| there == name));
    let mut named = wanted.iter().filter_map(|target| target.revision.as_ref());
    let next = match function.spec.latest_percent() {
        // Nothing moves while a revision is named that is not there, so no roll-out does.
        _ if named.any(|name| !existing.contains(name)) => rollout::Next {
            rollout: former.rollout.clone(),
            split: Split::all(stable.as_deref().unwrap_or(latest)),
            look_again: None,
        },
        Some(percent) => roll(inputs, stable.as_deref(), percent),
        // Nothing goes to the latest, so there is nothing to roll out.
        None => {
            rollout::Next { rollout: None, split: Split::all(stable.as_deref().unwrap_or(latest)), look_again: None }
        }
    };
    let (mut traffic, missing) =
        traffic::resolve(&traffic::Inputs { wanted, former: &former.traffic, split: &next.split, existing: &existing });
    for share in &mut traffic {
        share.url = share.tag.as_deref().and_then(|tag| url(inputs, tag));
    }
    Shares { traffic, rollout: next.rollout, missing, look_again: next.look_again }
}

fn roll(inputs: &Inputs<'_>, stable: Option<&str>, percent: u32) -> rollout::Next {
    let Inputs { function, former, found, applied, latest, state, .. } = *inputs;
    let (spec, scaling) = (&function.spec, function.spec.scaling());
    let ready = stable.and_then(|name| found.workloads.deployments.get(name)).map_or(0, |d| d.ready());
    let need = stable.map_or(0, |name| pods::need(spec.traffic.as_deref().unwrap_or_default(), name, ready));
    let refused = applied.as_ref().is_ok_and(|resources| {
        resources.state.rejected.is_some() || resources.state.conflicts.iter().any(|c| c.kind != Kind::Service)
    });
    let of_latest = former.latest_revision.as_deref() == Some(latest);
    // Where nobody needs it and nothing is to prove it, its first call does.
    let untried = scaling.initial() == 0
        && need == 0
        && state.failure.is_none()
        && !(of_latest && said(former, REVISION_READY, "False"));
    let mut wanted: RolloutSpec = spec.rollout();
    if percent == 0 {
        // Without calls there is nothing to go in steps.
        wanted.steps = None;
    }
    rollout::next(&rollout::Inputs {
        spec: &wanted,
        former: former.rollout.as_ref(),
        stable,
        latest,
        proven: !refused && (state.ready > 0 || (of_latest && said(former, REVISION_READY, "True")) || untried),
        state,
        need,
        proof: scaling.initial(),
        max: scaling.max(),
        cold_start: spec.timeouts().cold_start(),
        figures: inputs.figures,
        now: inputs.now,
    })
}

/// Where the ingress answers for a tag, if it does.
fn url(inputs: &Inputs<'_>, tag: &str) -> Option<String> {
    let function = inputs.function;
    let public = function.spec.visibility() == Visibility::Public;
    let host = inputs.names.hosts.tagged(tag, &function.name_any(), &function.namespace().unwrap_or_default());
    let lost = inputs.found.lost_hosts.iter().any(|lost| lost.host.as_deref() == Some(&host));
    (public && !lost).then(|| inputs.names.url(&host))
}
