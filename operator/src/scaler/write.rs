//! The scaler's writes: a count, and the marks on pods that are to go.

use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use rouse_crds::{
    Function,
    names::{OPERATOR_FIELD_MANAGER, POD_DELETION_COST_ANNOTATION},
    pod::FunctionPod,
};
use serde_json::{Value, json};

use super::{Change, Scaler};
use crate::{children::DeploymentObject, key::FunctionKey};

/// The deletion cost of a pod that is to go: less than that of any other.
const COST: &str = "-1000";

/// Patches a count through `/scale`, on the condition that the Deployment has not changed since it was decided. Pods that
/// are to go are marked first, so that activators send nothing there any more.
pub(super) async fn scale(
    scaler: &Scaler,
    key: &FunctionKey,
    function: &Function,
    change: &Change,
) -> kube::Result<()> {
    let Change { deployment, from, to, reason, victims } = change;
    let name = deployment.name_any();
    for pod in victims {
        mark(scaler, key, pod, Some(COST)).await?;
    }
    let patch = json!({
        "metadata": {"resourceVersion": deployment.resource_version(), "uid": deployment.uid()},
        "spec": {"replicas": to},
    });
    let api: Api<DeploymentObject> = Api::namespaced(scaler.client.clone(), &key.namespace);
    api.patch_scale(&name, &params(), &Patch::Merge(patch)).await?;
    tracing::info!(function = %key, revision = name, from, to, %reason, "Scaled a revision");
    scaler.metrics.scaled(if to > from { "up" } else { "down" }, reason.word());
    if *to == 0 {
        let note = format!("{name} has no pods: {reason}");
        scaler.events.normal(&function.object_ref(&()), "ScaledToZero", &note).await;
    }
    Ok(())
}

/// Takes the mark off a pod that stays after all.
pub(super) async fn unmark(scaler: &Scaler, key: &FunctionKey, pod: &str) -> kube::Result<()> {
    tracing::info!(function = %key, pod, "A pod that was to go stays");
    mark(scaler, key, pod, None).await
}

/// A pod that is gone needs no mark.
async fn mark(scaler: &Scaler, key: &FunctionKey, pod: &str, cost: Option<&str>) -> kube::Result<()> {
    let api: Api<FunctionPod> = Api::namespaced(scaler.client.clone(), &key.namespace);
    let cost = cost.map_or(Value::Null, Value::from);
    let patch = json!({"metadata": {"annotations": {POD_DELETION_COST_ANNOTATION: cost}}});
    match api.patch_metadata(pod, &params(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop),
    }
}

/// Whether a write failed because somebody else was faster: no fault of anybody.
pub(super) fn is_race(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict() || status.is_not_found())
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}
