//! Reconciliation of a Function, in five steps:
//!
//! [`dereference`] (reads its objects from the caches) → [`validate`] (pure; what the schema cannot express) →
//! [`build`] (pure; computes the objects to write) → [`apply`] (writes them) → [`update_status`] (computes and writes
//! the status, with the pure modules [`status`] and [`rollout`]).
//!
//! An unchanged Function causes no writes. All comparisons use the caches, so a resync makes no API requests.

pub mod apply;
pub mod build;
pub mod context;
pub mod dereference;
pub mod rollout;
pub mod status;
#[cfg(test)]
mod tests;
pub mod update_status;
pub mod validate;

use std::{sync::Arc, time::Duration};

use rouse_crds::{Function, conditions::INVALID};
use tokio::time::Instant;

use crate::{
    cluster::{key::FunctionKey, refusal::Refusal},
    runtime::backoff,
};
pub use context::Context;

/// Deadline of a reconcile. It is then cancelled and retried.
const DEADLINE: Duration = Duration::from_secs(60);

/// Error of a reconcile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write failed.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The status could not be written.
    #[error("failed to write the status: {0}")]
    Status(#[source] kube::Error),
    /// The deadline passed.
    #[error("reconcile did not finish within {DEADLINE:?}")]
    Timeout,
}

/// Reconciles one Function. Returns when to reconcile again without an event.
///
/// Cancellation may leave a part of the writes undone. The next call continues from any state, because every write is
/// idempotent or conditional.
pub async fn reconcile(context: Arc<Context>, key: FunctionKey) -> Option<Instant> {
    let Some(guarded) = context.caches.functions.get(&key, &key.name) else {
        context.forget(&key);
        return None;
    };
    let function = match &guarded.0 {
        Ok(function) => function,
        Err(invalid) => {
            tracing::warn!(function = %key, error = %invalid.error, "Failed to parse Function; ignoring it until it changes");
            let reference = kube::Resource::object_ref(&*guarded, &());
            context
                .events
                .warning(&reference, INVALID, &format!("Failed to parse the Function: {}", invalid.error))
                .await;
            return None;
        }
    };
    if function.metadata.deletion_timestamp.is_some() {
        // The garbage collector deletes its objects; recreating them would only add work.
        context.forget(&key);
        return None;
    }
    let start = Instant::now();
    let outcome = tokio::time::timeout(DEADLINE, steps(&context, &key, function)).await.unwrap_or(Err(Error::Timeout));
    context.metrics.reconciled(start.elapsed(), outcome.as_ref().is_ok_and(|steps| steps.failed.is_none()));
    let Steps { again, failed } = outcome.unwrap_or_else(|error| Steps { again: None, failed: Some(error) });
    let again = again.map(|after| Instant::now() + after);
    let Some(error) = failed else {
        context.failures.lock().remove(&key);
        return again;
    };
    let failures = {
        let mut failures = context.failures.lock();
        let count = failures.entry(key.clone()).or_default();
        *count = count.saturating_add(1);
        *count
    };
    let wait = match &error {
        // Waiting longer does not help: somebody has to raise a quota or to change a policy.
        Error::Apply(error) if error.refusal() != Refusal::Temporary => backoff::REJECTED.after(failures),
        _ => backoff::RECONCILE.after(failures),
    };
    tracing::warn!(function = %key, %error, failures, retry_in = ?wait, "Failed to reconcile Function; will retry");
    let retry = Instant::now() + wait;
    Some(again.map_or(retry, |again| again.min(retry)))
}

/// Result of the five steps.
struct Steps {
    /// Time after which to reconcile again without an event.
    again: Option<Duration>,
    /// Error of a write.
    failed: Option<Error>,
}

/// Runs the five steps.
async fn steps(context: &Context, key: &FunctionKey, function: &Function) -> Result<Steps, Error> {
    let found = dereference::dereference(context, key, function);
    context.outcomes.keep(key, |revision| found.workloads.deployments.contains_key(revision));
    let prepared = validate::validate(function)
        .and_then(|valid| build::build(&valid, &found, &context.names, &context.pod_defaults));
    let applied = match prepared {
        Ok(resources) => Ok(apply::apply(context, key, function, resources).await?),
        Err(invalid) => Err(invalid),
    };
    let again = update_status::update_status(context, key, function, &found, &applied).await.map_err(Error::Status)?;
    let (failures, repair_at) =
        applied.map_or_else(|_| (vec![], None), |resources| (resources.state.failures, resources.state.repair_at));
    let repair_in = repair_at.map(|at| at.saturating_duration_since(Instant::now()));
    let again = [again, repair_in].into_iter().flatten().min();
    let failed = failures.into_iter().min_by_key(|error| error.refusal() != Refusal::Temporary).map(Error::Apply);
    Ok(Steps { again, failed })
}
