//! Step five: what is, is said, if it is another than what was said before.

use std::time::Duration;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use rouse_crds::{
    Function,
    conditions::{ACTIVE, NOT_STARTED, READY, REVISION_READY, ROUTABLE, set},
    function::{Address, FunctionStatus, ReplicaStatus, Visibility},
    names::OPERATOR_FIELD_MANAGER,
};
use serde_json::json;

use super::{
    Context, Names,
    apply::Applied,
    build::Resources,
    conditions::{self, Inputs},
    dereference::Found,
    observe::{self, RevisionState},
    traffic,
    validate::Invalid,
};
use crate::key::FunctionKey;

/// A status that was written and has not come back through the watch yet.
#[derive(Clone, Debug)]
pub struct LastWritten {
    /// The `resourceVersion` that the cache had.
    seen: Option<String>,
    status: FunctionStatus,
}

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
            Some(last) if last.seen == seen => last.status.clone(),
            _ => {
                // What was written has come back, so it need not be kept any more.
                written.remove(key);
                function.status.clone().unwrap_or_default()
            }
        }
    };
    // That field is the autoscaler's: it is neither compared here nor sent.
    let former = FunctionStatus { habits: None, ..former };
    let now = Timestamp::now();
    let (status, state) = compute(function, &former, found, applied, &context.names, now);
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
        match api.patch_status(&key.name, &params, &Patch::Apply(body)).await {
            Ok(_) => {}
            // It was deleted, or deleted and made anew; the watch will say.
            Err(kube::Error::Api(refused)) if refused.is_not_found() || refused.is_conflict() => return Ok(None),
            Err(error) => return Err(error),
        }
        tell(context, key, function, &former, &status).await;
        context.written.lock().insert(key.clone(), LastWritten { seen, status });
    }
    let obstacle = match applied {
        Ok(resources) => !resources.state.conflicts.is_empty() || resources.state.rejected.is_some(),
        Err(_) => false,
    };
    Ok(if obstacle { Some(state.look_again.map_or(OBSTACLE, |t| t.min(OBSTACLE))) } else { state.look_again })
}

/// The status as it should be. Pure.
fn compute(
    function: &Function,
    former: &FunctionStatus,
    found: &Found,
    applied: &Result<Resources<Applied>, Invalid>,
    names: &Names,
    now: Timestamp,
) -> (FunctionStatus, RevisionState) {
    let spec = &function.spec;
    let (name, namespace) = (function.name_any(), function.namespace().unwrap_or_default());
    let scaling = spec.scaling();
    let mut existing: Vec<String> = found.deployments.keys().cloned().collect();
    let (latest, invalid) = match applied {
        Ok(resources) => {
            for made in &resources.create {
                existing.push(made.name_any());
            }
            existing.sort();
            existing.dedup();
            (resources.latest.clone(), resources.state.rejected.as_ref())
        }
        Err(invalid) => (former.latest_revision.clone().unwrap_or_default(), Some(invalid)),
    };
    let mut state = observe::revision(found, &latest, spec.timeouts().cold_start(), now);
    if let Ok(resources) = applied
        && !found.deployments.contains_key(&latest)
        && resources.create.iter().any(|d| d.name_any() == latest)
    {
        state.desired = scaling.initial();
    }
    let proven = former.latest_revision.as_deref() == Some(&latest) && said_true(former, REVISION_READY);
    let wanted = spec.traffic.as_deref().unwrap_or_default();
    let (shares, missing) = if latest.is_empty() {
        (former.traffic.clone(), None)
    } else {
        traffic::resolve(&traffic::Inputs {
            wanted,
            former: &former.traffic,
            latest: &latest,
            latest_may_serve: state.ready > 0 || proven || scaling.initial() == 0,
            existing: &existing,
        })
    };
    let others = found.deployments.iter().filter(|(name, _)| **name != latest).map(|(_, d)| (d.desired(), d.ready()));
    let (desired, ready) = others.fold((state.desired, state.ready), |sum, next| (sum.0 + next.0, sum.1 + next.1));

    let pods_refused = observe::pods_refused(found);
    let mut conditions = former.conditions.clone();
    let wanted = conditions::decide(&Inputs {
        former,
        invalid,
        conflicts: applied.as_ref().map_or(&[], |r| &r.state.conflicts),
        lost_hosts: &found.lost_hosts,
        missing: missing.as_ref(),
        latest: &latest,
        state: &state,
        unproven_is_fine: scaling.initial() == 0,
        pods: desired.max(u32::try_from(found.pods.iter().filter(|p| !p.ended()).count()).unwrap_or(u32::MAX)),
        pods_refused: pods_refused.as_ref(),
    });
    let generation = function.metadata.generation.unwrap_or_default();
    for condition in &wanted {
        set(&mut conditions, condition, generation, &Time(now));
    }
    let public = spec.visibility() == Visibility::Public;
    let count = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    let status = FunctionStatus {
        observed_generation: Some(generation),
        url: public.then(|| format!("http://{}", names.hosts.host(&name, &namespace))),
        address: Some(Address { url: format!("http://{name}.{namespace}.svc.{}", names.cluster_domain) }),
        replicas: Some(ReplicaStatus { desired: count(desired), ready: count(ready) }),
        latest_revision: Some(latest).filter(|l| !l.is_empty()),
        traffic: shares,
        conditions,
        ..FunctionStatus::default()
    };
    (status, state)
}

fn condition<'a>(status: &'a FunctionStatus, type_: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|c| c.type_ == type_)
}

fn said_true(status: &FunctionStatus, type_: &str) -> bool {
    condition(status, type_).is_some_and(|c| c.status == "True")
}

fn is_because(status: &FunctionStatus, type_: &str, reason: &str) -> bool {
    condition(status, type_).is_some_and(|c| c.reason == reason)
}

/// Tells of what has become another: once for each transition, however often the status is written.
async fn tell(
    context: &Context,
    key: &FunctionKey,
    function: &Function,
    former: &FunctionStatus,
    status: &FunctionStatus,
) {
    let reference = function.object_ref(&());
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

#[cfg(test)]
mod tests;
