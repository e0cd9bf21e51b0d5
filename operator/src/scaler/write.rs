//! The scaler's writes: a count, and the marks on pods that are to go.

use std::time::Duration;

use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use rouse_autoscaler::Reason;
use rouse_crds::{
    Function,
    names::{OPERATOR_FIELD_MANAGER, POD_DELETION_COST_ANNOTATION},
    pod::FunctionPod,
};
use serde_json::{Value, json};

use super::{Change, Scaler};
use crate::cluster::{children::DeploymentObject, key::FunctionKey};

/// The client tries again by itself what the API server puts off, after the time that that names; what was decided is too
/// old by then, and decided anew.
const DEADLINE: Duration = Duration::from_secs(10);

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server has refused it, or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// It has not answered.
    #[error("not done within {DEADLINE:?}")]
    Late,
}

/// Patches a count through `/scale`, on the condition that the Deployment has not changed since it was decided.
pub(super) async fn scale(scaler: &Scaler, key: &FunctionKey, change: &Change) -> Result<(), Error> {
    let Change { deployment, from, to, decision, foreign: _ } = change;
    let name = deployment.name_any();
    let patch = json!({
        "metadata": {"resourceVersion": deployment.resource_version(), "uid": deployment.uid()},
        "spec": {"replicas": to},
    });
    let api: Api<DeploymentObject> = Api::namespaced(scaler.client.clone(), &key.namespace);
    paced(scaler, api.patch_scale(&name, &params(), &Patch::Merge(patch))).await?;
    let (wanted, reason) = (decision.replicas, decision.reason);
    tracing::info!(function = %key, revision = name, from, to, wanted, %reason, "Scaled a revision");
    scaler.metrics.scaled(if to > from { "up" } else { "down" }, reason.word());
    Ok(())
}

/// Tells of a change that somebody may wonder about: going to zero, pods that no call has asked for, and what somebody else
/// has set and finds changed.
pub(super) async fn tell(scaler: &Scaler, function: &Function, change: &Change) {
    let Change { deployment, from, to, decision, foreign } = change;
    let (name, about) = (deployment.name_any(), function.object_ref(&()));
    let reason = decision.reason;
    if let Some((before, set)) = foreign {
        let note = format!(
            "{name} was changed from {before} to {set} pods by somebody else and is scaled to {} again: {decision}. With \
             scaling.paused the count is left alone",
            decision.replicas
        );
        tracing::info!(function = %about.name.as_deref().unwrap_or_default(), revision = name, before, set, wanted = decision.replicas, %reason, "Corrected a count that somebody else has set");
        scaler.metrics.corrected();
        scaler.events.normal(&about, "ScaleCorrected", &note).await;
    }
    let (event, note) = match reason {
        _ if *to == 0 => ("ScaledToZero", format!("{name} has no pods: {reason}")),
        Reason::Scheduled if to > from => ("Scheduled", format!("{name} is scaled from {from} to {to}: {reason}")),
        Reason::Prewarmed if to > from => ("Prewarmed", format!("{name} is scaled from {from} to {to}: {reason}")),
        _ => return,
    };
    scaler.events.normal(&about, event, &note).await;
}

/// Sets a pod's deletion cost; 0 takes it off one that stays after all. A pod that is gone needs none.
pub(super) async fn mark(scaler: &Scaler, key: &FunctionKey, pod: &str, cost: i64) -> Result<(), Error> {
    if cost == 0 {
        tracing::info!(function = %key, pod, "A pod that was to go stays");
    } else {
        tracing::debug!(function = %key, pod, cost, "A pod is to go");
    }
    let api: Api<FunctionPod> = Api::namespaced(scaler.client.clone(), &key.namespace);
    let cost = if cost == 0 { Value::Null } else { Value::from(cost.to_string()) };
    let patch = json!({"metadata": {"annotations": {POD_DELETION_COST_ANNOTATION: cost}}});
    match paced(scaler, api.patch_metadata(pod, &params(), &Patch::Merge(patch))).await {
        Err(Error::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// Takes a turn and writes. If the API server has had too much, nobody writes for as long as it says.
pub(super) async fn paced<T>(scaler: &Scaler, write: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    scaler.pace.turn().await;
    let written = tokio::time::timeout(DEADLINE, write).await.map_err(|_| Error::Late)?;
    if let Err(kube::Error::Api(status)) = &written
        && status.code == 429
    {
        let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
        scaler.pace.hold(Duration::from_secs(seconds.clamp(1, 60).into()));
    }
    Ok(written?)
}

/// Whether a write failed because somebody else was faster: no fault of anybody.
pub(super) fn is_race(error: &Error) -> bool {
    matches!(error, Error::Api(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found())
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}
