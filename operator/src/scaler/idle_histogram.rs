//! Persistence of the idle-time histogram of a Function, in `status.idleHistogram`, so that it survives a restart.

use std::time::Duration;

use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use rouse_autoscaler::{IdleHistogram, State};
use rouse_crds::{
    Function,
    function::{Prewarm, TrafficStatus},
    names::AUTOSCALER_FIELD_MANAGER,
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    Scaler,
    write::{Error, rate_limited},
};
use crate::cluster::key::FunctionKey;

/// Shortest time between two writes for one Function. A restart loses at most this much.
const WRITE_INTERVAL: Duration = Duration::from_secs(600);

/// Longest value of the field in the CRD, in bytes. A histogram takes at most half of it.
const MAX_BYTES: usize = 4096;

/// Last write of the histogram of a Function.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Persisted {
    /// Time of the last comparison with the status.
    at: Option<Instant>,
    /// Number of idle times in the histogram at that time.
    total: u32,
}

/// A new value for the field; `None` removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatusPatch(pub(super) Option<String>);

/// Returns a state that starts at `now` with the histogram in the status.
pub(super) fn restore(function: &Function, now: Duration) -> State {
    let value = function.status.as_ref().and_then(|s| s.idle_histogram.as_deref());
    match value.filter(|_| learns(function)).map(str::parse::<IdleHistogram>) {
        Some(Ok(histogram)) => State::restored(now, histogram, None),
        Some(Err(error)) => {
            tracing::warn!(function = function.name_any(), namespace = function.namespace(), %error, "Failed to parse status.idleHistogram; starting with an empty idle-time histogram");
            State::new(now)
        }
        None => State::new(now),
    }
}

fn learns(function: &Function) -> bool {
    function.spec.scaling.as_ref().is_some_and(|s| s.prewarm() == Prewarm::Auto)
}

impl Persisted {
    /// Returns the write that is due now, and when to reconcile for the next one. `histogram` is the current histogram,
    /// by traffic.
    pub(super) fn next_write<'a>(
        &mut self,
        function: &Function,
        histogram: impl FnOnce(&[TrafficStatus]) -> Option<&'a IdleHistogram>,
    ) -> (Option<StatusPatch>, Option<Instant>) {
        let status = function.status.as_ref();
        let former = status.and_then(|s| s.idle_histogram.as_deref());
        let learns = learns(function);
        if !learns && former.is_none() {
            return (None, None);
        }
        let due = self.at.map(|at| at + WRITE_INTERVAL).filter(|due| *due > Instant::now());
        let traffic = status.map_or(&[][..], |s| &s.traffic[..]);
        let histogram = if learns { histogram(traffic) } else { None };
        let total = histogram.map_or(0, IdleHistogram::total);
        if let Some(due) = due {
            // Old idle times lose weight, so the total differs whenever one was added.
            return (None, (total != self.total).then_some(due));
        }
        let desired = if learns {
            // Nothing is learned yet: the persisted histogram is of more use.
            let Some(histogram) = histogram else { return (None, None) };
            Some(histogram.to_string()).filter(|text| text.len() <= MAX_BYTES)
        } else {
            None
        };
        *self = Self { at: Some(Instant::now()), total };
        ((desired.as_deref() != former).then_some(StatusPatch(desired)), None)
    }

    /// Records that the write failed. It is retried after [`WRITE_INTERVAL`].
    pub(super) fn write_failed(&mut self) {
        self.total = u32::MAX;
    }
}

/// Applies the field, the only one of the status that the autoscaler owns.
pub(super) async fn apply(
    scaler: &Scaler,
    key: &FunctionKey,
    function: &Function,
    patch: &StatusPatch,
) -> Result<(), Error> {
    let status = patch.0.as_ref().map_or_else(|| json!({}), |text| json!({"idleHistogram": text}));
    let body = json!({
        "apiVersion": Function::api_version(&()),
        "kind": Function::kind(&()),
        // The uid prevents the write to a Function that was recreated under the same name.
        "metadata": {"name": key.name, "namespace": key.namespace, "uid": function.uid()},
        "status": status,
    });
    let api: Api<Function> = Api::namespaced(scaler.client.clone(), &key.namespace);
    let params = PatchParams::apply(AUTOSCALER_FIELD_MANAGER).force();
    match rate_limited(scaler, api.patch_status(&key.name, &params, &Patch::Apply(body))).await {
        Err(Error::Api(kube::Error::Api(refused))) if refused.is_not_found() || refused.is_conflict() => Ok(()),
        other => other.map(drop),
    }
}
