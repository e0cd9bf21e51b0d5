//! Step five: what is, is said, if it is another than what was said before.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use rouse_crds::{
    Function,
    conditions::set,
    function::{Address, FunctionStatus, ReplicaStatus, RevisionStatus, RolloutPhase, TrafficStatus, Visibility},
    names::OPERATOR_FIELD_MANAGER,
};
use serde_json::json;

use super::{
    Context,
    apply::Applied,
    build::{Resources, revision::known},
    dereference::{Found, Kind, config::Config},
    status::{
        assignment,
        conditions::{self, Inputs},
        last_written::LastWritten,
        transitions::tell,
    },
};
use crate::{
    cluster::key::FunctionKey,
    hosts::Names,
    spec::invalid::Invalid,
    workloads::{observe, outcomes::Figures},
};

/// How long until something that stands in the way is looked at again: a name that is taken, an object that was refused.
const OBSTACLE: Duration = Duration::from_secs(60);

/// Writes the status if it has changed, tells of transitions, and says after how long to look again.
pub async fn update_status(
    context: &Context,
    key: &FunctionKey,
    function: &Function,
    found: &Found,
    applied: &Result<Resources<Applied>, Invalid>,
) -> Result<Option<Duration>, kube::Error> {
    let seen = function.resource_version();
    let former = {
        let mut written = context.written.lock();
        match written.get(key) {
            Some(last) if last.is_ahead_of(seen.as_ref()) => last.status.clone(),
            _ => {
                // What was written has come back, so it need not be kept any more.
                written.remove(key);
                function.status.clone().unwrap_or_default()
            }
        }
    };
    // What the autoscaler has learned is another's part of the status.
    let former = FunctionStatus { habits: None, ..former };
    let figures = context.baselines.figures(key, former.rollout.as_ref(), &context.outcomes);
    let (status, look_again) = compute(function, &former, found, applied, &context.names, &figures, (context.clock)());
    if status != former {
        let body = json!({
            "apiVersion": Function::api_version(&()),
            "kind": Function::kind(&()),
            // With the uid, so that a Function that was made anew under this name is not given the status of its forerunner.
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": function.uid()},
            "status": status,
        });
        let api: Api<Function> = Api::namespaced(context.client.clone(), &key.namespace);
        let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
        let made = match api.patch_status(&key.name, &params, &Patch::Apply(body)).await {
            Ok(written) => written.resource_version(),
            // It was deleted, or deleted and made anew; the watch will say.
            Err(kube::Error::Api(refused)) if refused.is_not_found() || refused.is_conflict() => return Ok(None),
            Err(error) => return Err(error),
        };
        context.baselines.set(key, status.rollout.as_ref(), &context.outcomes);
        tell(context, key, function, &former, &status).await;
        context.written.lock().insert(key.clone(), LastWritten { seen, made, status });
    } else {
        // After a restart in the middle of a step. Not before a write: one that fails must not lose what it was decided from.
        context.baselines.set(key, status.rollout.as_ref(), &context.outcomes);
    }
    let obstacle = match applied {
        Ok(resources) => !resources.state.conflicts.is_empty() || resources.state.rejected.is_some(),
        Err(_) => false,
    };
    Ok([look_again, obstacle.then_some(OBSTACLE)].into_iter().flatten().min())
}

/// The status as it should be, and after how long to look again. Pure.
fn compute(
    function: &Function,
    former: &FunctionStatus,
    found: &Found,
    applied: &Result<Resources<Applied>, Invalid>,
    names: &Names,
    figures: &Figures,
    now: Timestamp,
) -> (FunctionStatus, Option<Duration>) {
    let spec = &function.spec;
    let (name, namespace) = (function.name_any(), function.namespace().unwrap_or_default());
    let scaling = spec.scaling();
    let (latest, invalid) = match applied {
        Ok(resources) => (resources.latest.clone(), resources.state.rejected.as_ref()),
        Err(invalid) => (former.latest_revision.clone().unwrap_or_default(), Some(invalid)),
    };
    let mut state = observe::revision(&found.workloads, &latest, spec.timeouts().cold_start(), now);
    let made = applied.iter().flat_map(|r| &r.create).find(|made| made.name_any() == latest);
    if let Some(made) = made.filter(|_| !found.workloads.deployments.contains_key(&latest)) {
        let desired = made.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        state.desired = u32::try_from(desired).unwrap_or(0);
    }
    let shares = assignment::decide(&assignment::Inputs {
        function,
        former,
        found,
        applied,
        latest: &latest,
        state: &state,
        names,
        figures,
        now,
    });
    let others =
        found.workloads.deployments.iter().filter(|(name, _)| **name != latest).map(|(_, d)| (d.desired(), d.ready()));
    let (desired, ready) = others.fold((state.desired, state.ready), |sum, next| (sum.0 + next.0, sum.1 + next.1));

    let pods_refused = observe::pods_refused(&found.workloads);
    let aborted = shares.rollout.as_ref().filter(|r| r.phase == RolloutPhase::Aborted);
    let mut conditions = former.conditions.clone();
    let wanted = conditions::decide(&Inputs {
        former,
        invalid,
        conflicts: applied.as_ref().map_or(&[], |r| &r.state.conflicts),
        lost_hosts: &found.lost_hosts,
        missing: shares.missing.as_ref(),
        latest: &latest,
        state: &state,
        aborted: aborted.and_then(|r| r.message.as_deref()),
        rolling: aborted.is_none() && shares.rollout.is_some(),
        notice: (found.config == Config::NotWatched).then_some(conditions::CONFIG_NOTICE),
        unproven_is_fine: scaling.initial() == 0,
        pods: desired
            .max(u32::try_from(found.workloads.pods.iter().filter(|p| !p.ended()).count()).unwrap_or(u32::MAX)),
        pods_refused: pods_refused.as_ref(),
    });
    let generation = function.metadata.generation.unwrap_or_default();
    for condition in &wanted {
        set(&mut conditions, condition, generation, &Time(now));
    }
    let public = spec.visibility() == Visibility::Public;
    let status = FunctionStatus {
        observed_generation: Some(generation),
        url: public.then(|| names.url(&names.hosts.host(&name, &namespace))),
        address: Some(Address { url: format!("http://{name}.{namespace}.svc.{}", names.cluster_domain) }),
        replicas: Some(ReplicaStatus { desired: count(desired), ready: count(ready) }),
        latest_revision: Some(latest).filter(|l| !l.is_empty()),
        revisions: revisions(&name, found, applied, &shares.traffic),
        traffic: shares.traffic,
        rollout: shares.rollout,
        conditions,
        habits: None,
    };
    let look_again = [state.look_again, shares.look_again].into_iter().flatten().min();
    (status, look_again)
}

/// What there is, the newest first.
fn revisions(
    function: &str,
    found: &Found,
    applied: &Result<Resources<Applied>, Invalid>,
    traffic: &[TrafficStatus],
) -> Vec<RevisionStatus> {
    let percent = |name: &str| traffic.iter().filter(|t| t.revision == name).map(|t| t.percent).sum();
    let gone = |name: &str| {
        let mut removed = applied.iter().flat_map(|r| &r.remove);
        removed.any(|r| r.kind == Kind::ControllerRevision && r.name == name)
    };
    let known = known(function, found);
    let made = applied.iter().filter_map(|r| r.revision.as_ref().zip(r.state.made.as_ref()));
    let made = made.filter(|(revision, _)| !known.iter().any(|k| k.name == revision.name_any()));
    let made: Vec<_> = made
        .map(|(revision, made)| RevisionStatus {
            percent: percent(&revision.name_any()),
            name: revision.name_any(),
            image: made.image.clone(),
            created: made.created.clone(),
            ready: 0,
        })
        .collect();
    let there = known.into_iter().filter(|known| !gone(&known.name)).rev().map(|known| RevisionStatus {
        percent: percent(&known.name),
        ready: count(found.workloads.deployments.get(&known.name).map_or(0, |d| d.ready())),
        name: known.name,
        image: known.image,
        created: known.created,
    });
    made.into_iter().chain(there).collect()
}

fn count(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
