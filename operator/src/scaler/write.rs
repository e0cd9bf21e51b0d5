//! Writes of the scaler: replica counts, pod deletion costs, and the Events about them.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use rouse_autoscaler::{Decision, Reason};
use rouse_crds::{
    Function,
    names::{OPERATOR_FIELD_MANAGER, POD_DELETION_COST_ANNOTATION},
    pod::FunctionPod,
};
use serde_json::{Value, json};

use super::Scaler;
use crate::cluster::{children::DeploymentObject, key::FunctionKey};

/// Deadline of one write. The client retries a request that the API server defers, after the time in `Retry-After`; the
/// decision is outdated by then and is made again instead.
const DEADLINE: Duration = Duration::from_secs(10);

/// A replica count to write.
#[derive(Debug)]
pub(super) struct ScaleChange {
    pub(super) deployment: Arc<DeploymentObject>,
    pub(super) from: u32,
    /// The next count on the way to the decided one.
    pub(super) to: u32,
    pub(super) decision: Decision,
    /// The external change that this one corrects: from, to.
    pub(super) external: Option<(u32, u32)>,
}

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server refused it, or was unreachable.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The API server did not respond in time.
    #[error("no response within {DEADLINE:?}")]
    Timeout,
}

/// Patches `/scale`, on the condition that the Deployment has not changed since the decision.
pub(super) async fn patch_scale(scaler: &Scaler, key: &FunctionKey, change: &ScaleChange) -> Result<(), Error> {
    let ScaleChange { deployment, from, to, decision, external: _ } = change;
    let name = deployment.name_any();
    let patch = json!({
        "metadata": {"resourceVersion": deployment.resource_version(), "uid": deployment.uid()},
        "spec": {"replicas": to},
    });
    let api: Api<DeploymentObject> = Api::namespaced(scaler.client.clone(), &key.namespace);
    rate_limited(scaler, api.patch_scale(&name, &params(), &Patch::Merge(patch))).await?;
    let (wanted, reason) = (decision.replicas, decision.reason);
    tracing::info!(function = %key, revision = name, from, to, wanted, %reason, "Scaled revision");
    scaler.metrics.scaled(if to > from { "up" } else { "down" }, reason.word());
    Ok(())
}

/// Records Events for the changes that no request explains: a scale to zero, pods for a schedule or prewarming, and the
/// correction of an external change.
pub(super) async fn record_events(scaler: &Scaler, function: &Function, change: &ScaleChange) {
    let ScaleChange { deployment, from, to, decision, external } = change;
    let (name, regarding) = (deployment.name_any(), function.object_ref(&()));
    let reason = decision.reason;
    if let Some((before, set)) = external {
        let note = format!(
            "{name} was scaled from {before} to {set} pods by another client and is scaled back to {}: {decision}. Set \
             scaling.paused to keep a manual count",
            decision.replicas
        );
        tracing::info!(function = %regarding.name.as_deref().unwrap_or_default(), revision = name, before, set, wanted = decision.replicas, %reason, "Corrected replicas that another client set");
        scaler.metrics.corrected();
        scaler.events.normal(&regarding, "ScaleCorrected", &note).await;
    }
    let (event, note) = match reason {
        _ if *to == 0 => ("ScaledToZero", format!("{name} was scaled to zero: {reason}")),
        Reason::Scheduled if to > from => {
            ("Scheduled", format!("{name} was scaled from {from} to {to} pods: {reason}"))
        }
        Reason::Prewarmed if to > from => {
            ("Prewarmed", format!("{name} was scaled from {from} to {to} pods: {reason}"))
        }
        _ => return,
    };
    scaler.events.normal(&regarding, event, &note).await;
}

/// Sets the deletion cost of a pod; 0 removes it. Succeeds if the pod does not exist any more.
pub(super) async fn set_deletion_cost(scaler: &Scaler, key: &FunctionKey, pod: &str, cost: i64) -> Result<(), Error> {
    if cost == 0 {
        tracing::info!(function = %key, pod, "Cancelled the removal of a pod");
    } else {
        tracing::debug!(function = %key, pod, cost, "Selected a pod for removal");
    }
    let api: Api<FunctionPod> = Api::namespaced(scaler.client.clone(), &key.namespace);
    let cost = if cost == 0 { Value::Null } else { Value::from(cost.to_string()) };
    let patch = json!({"metadata": {"annotations": {POD_DELETION_COST_ANNOTATION: cost}}});
    match rate_limited(scaler, api.patch_metadata(pod, &params(), &Patch::Merge(patch))).await {
        Err(Error::Api(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// Writes when the rate limit allows it. A 429 from the API server pauses all writes for as long as it asks.
pub(super) async fn rate_limited<T>(scaler: &Scaler, write: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    scaler.rate_limiter.acquire().await;
    let result = tokio::time::timeout(DEADLINE, write).await.map_err(|_| Error::Timeout)?;
    if let Err(kube::Error::Api(status)) = &result
        && status.code == 429
    {
        let seconds = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
        scaler.rate_limiter.pause(Duration::from_secs(seconds.clamp(1, 60).into()));
    }
    Ok(result?)
}

/// Returns whether a write failed because the object changed or was deleted in the meantime, which is expected.
pub(super) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found())
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}
