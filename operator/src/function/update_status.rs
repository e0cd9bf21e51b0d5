//! Step 5: computes the status and writes it if it changed.

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
    build::{Resources, revision::known_revisions},
    dereference::{Dereferenced, Kind, config::Config},
    status::{
        assignment,
        conditions::{self, Inputs},
        last_written::LastWritten,
        transitions,
    },
};
use crate::{
    cluster::key::FunctionKey,
    hosts::Names,
    spec::invalid::Invalid,
    workloads::{observe, outcomes::RequestStats},
};

/// Retry interval for name conflicts.
const RETRY_CONFLICT: Duration = Duration::from_secs(60);

/// Writes the status if it changed, records Events for transitions, and returns the time after which to reconcile
/// again.
pub async fn update_status(
    context: &Context,
    key: &FunctionKey,
    function: &Function,
    found: &Dereferenced,
    applied: &Result<Resources<Applied>, Invalid>,
) -> Result<Option<Duration>, kube::Error> {
    let seen = function.resource_version();
    let (former, version) = {
        let mut written = context.written.lock();
        match written.get(key) {
            Some(last) if last.is_ahead_of(seen.as_ref()) => (last.status.clone(), last.made.clone()),
            _ => {
                // The watch has delivered the written status.
                written.remove(key);
                (function.status.clone().unwrap_or_default(), seen.clone())
            }
        }
    };
    // `status.idleHistogram` belongs to the field manager of the autoscaler.
    let former = FunctionStatus { idle_histogram: None, ..former };
    let stats = context.baselines.stats_of_step(key, former.rollout.as_ref(), &context.outcomes);
    let facts = Facts { stats: &stats, max_reached: context.max_reached.is_reported(key), now: (context.clock)() };
    let (status, requeue_after) = compute(function, &former, found, applied, &context.names, &facts);
    if status != former {
        let body = json!({
            "apiVersion": Function::api_version(&()),
            "kind": Function::kind(&()),
            // The uid keeps a recreated Function from receiving the status of its predecessor, and the version keeps a leader
            // that was suspended from overwriting the status of its successor.
            "metadata": {"name": key.name, "namespace": key.namespace, "uid": function.uid(), "resourceVersion": version},
            "status": status,
        });
        let api: Api<Function> = Api::namespaced(context.client.clone(), &key.namespace);
        let params = PatchParams::apply(OPERATOR_FIELD_MANAGER).force();
        let made = match api.patch_status(&key.name, &params, &Patch::Apply(body)).await {
            Ok(written) => written.resource_version(),
            // The Function was changed, deleted or recreated; the watch delivers that.
            Err(kube::Error::Api(refused)) if refused.is_not_found() || refused.is_conflict() => return Ok(None),
            Err(error) => return Err(error),
        };
        context.baselines.set(key, status.rollout.as_ref(), &context.outcomes);
        transitions::record(context, key, function, &former, &status).await;
        context.written.lock().insert(key.clone(), LastWritten { seen, made, status });
    } else {
        // Restores the baseline after a restart during a step. Not before a write: a failed write must keep its inputs.
        context.baselines.set(key, status.rollout.as_ref(), &context.outcomes);
    }
    let conflict = applied.as_ref().is_ok_and(|resources| !resources.state.conflicts.is_empty());
    Ok([requeue_after, conflict.then_some(RETRY_CONFLICT)].into_iter().flatten().min())
}

/// What the status depends on besides the objects of the Function.
struct Facts<'a> {
    /// Requests of the revision that is rolled out, since the start of its step.
    stats: &'a RequestStats,
    /// Whether the load needs more pods than `scaling.max`.
    max_reached: bool,
    now: Timestamp,
}

/// Computes the status and the time after which to reconcile again. Pure.
fn compute(
    function: &Function,
    former: &FunctionStatus,
    found: &Dereferenced,
    applied: &Result<Resources<Applied>, Invalid>,
    names: &Names,
    facts: &Facts<'_>,
) -> (FunctionStatus, Option<Duration>) {
    let Facts { stats, max_reached, now } = *facts;
    let spec = &function.spec;
    let (name, namespace) = (function.name_any(), function.namespace().unwrap_or_default());
    let scaling = spec.scaling();
    let (latest, invalid) = match applied {
        Ok(resources) => (resources.latest.clone(), None),
        Err(invalid) => (former.latest_revision.clone().unwrap_or_default(), Some(invalid)),
    };
    let mut state = observe::revision(&found.workloads, &latest, spec.timeouts().cold_start(), now);
    let created = |name: &String| applied.iter().any(|r| r.state.created.contains(name));
    let made = applied.iter().flat_map(|r| &r.create).find(|made| made.name_any() == latest && created(&latest));
    if let Some(made) = made.filter(|_| !found.workloads.deployments.contains_key(&latest)) {
        let desired = made.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        state.desired = u32::try_from(desired).unwrap_or(0);
    }
    let traffic = assignment::decide(&assignment::Inputs {
        function,
        former,
        found,
        applied,
        latest: &latest,
        state: &state,
        names,
        stats,
        now,
    });
    let others =
        found.workloads.deployments.iter().filter(|(name, _)| **name != latest).map(|(_, d)| (d.desired(), d.ready()));
    let (desired, ready) = others.fold((state.desired, state.ready), |sum, next| (sum.0 + next.0, sum.1 + next.1));

    let pods_refused = observe::pods_refused(&found.workloads);
    let shortage = observe::shortage(&found.workloads);
    let aborted = traffic.rollout.as_ref().filter(|r| r.phase == RolloutPhase::Aborted);
    let mut conditions = former.conditions.clone();
    let wanted = conditions::decide(&Inputs {
        former,
        invalid,
        applied: applied.as_ref().ok().map(|r| &r.state),
        lost_hosts: &found.lost_hosts,
        missing: traffic.missing.as_ref(),
        latest: &latest,
        exists: found.workloads.deployments.contains_key(&latest) || created(&latest),
        state: &state,
        aborted: aborted.and_then(|r| r.message.as_deref()),
        rolling: aborted.is_none() && traffic.rollout.is_some(),
        notice: (found.config == Config::NotWatched).then_some(conditions::CONFIG_NOTICE),
        skip_verification: scaling.initial() == 0,
        pods: desired
            .max(u32::try_from(found.workloads.pods.iter().filter(|p| !p.ended()).count()).unwrap_or(u32::MAX)),
        pods_refused: pods_refused.as_ref(),
        shortage: shortage.as_ref(),
        max_reached: max_reached.then(|| scaling.max()),
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
        revisions: revisions(&name, found, applied, &traffic.traffic),
        traffic: traffic.traffic,
        rollout: traffic.rollout,
        conditions,
        idle_histogram: None,
    };
    let requeue_after = [state.requeue_after, traffic.requeue_after].into_iter().flatten().min();
    (status, requeue_after)
}

/// Existing revisions, newest first.
fn revisions(
    function: &str,
    found: &Dereferenced,
    applied: &Result<Resources<Applied>, Invalid>,
    traffic: &[TrafficStatus],
) -> Vec<RevisionStatus> {
    let percent = |name: &str| traffic.iter().filter(|t| t.revision == name).map(|t| t.percent).sum();
    let removed = |name: &str| {
        let mut removals = applied.iter().flat_map(|r| &r.remove);
        removals.any(|r| r.kind == Kind::ControllerRevision && r.name == name)
    };
    let known = known_revisions(function, found);
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
    let existing = known.into_iter().filter(|known| !removed(&known.name)).rev().map(|known| RevisionStatus {
        percent: percent(&known.name),
        ready: count(found.workloads.deployments.get(&known.name).map_or(0, |d| d.ready())),
        name: known.name,
        image: known.image,
        created: known.created,
    });
    made.into_iter().chain(existing).collect()
}

fn count(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
