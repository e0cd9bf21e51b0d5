//! A Function becomes objects, in five steps with one file each:
//!
//! **dereference** (read what it refers to, from the caches) → **validate** (pure; what the schema cannot say) → **build**
//! (pure; what is to be written) → **apply** (write it) → **update_status** (say what is).
//!
//! Nothing is written when nothing has changed: all comparisons are with the caches, so a resync costs no call at all.

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

use crate::{cluster::key::FunctionKey, runtime::backoff};
pub use context::Context;

/// No reconcile takes longer; one that does is given up and tried again.
const DEADLINE: Duration = Duration::from_secs(60);

/// Why a Function could not be reconciled now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write failed.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The status could not be written.
    #[error("cannot write the status: {0}")]
    Status(#[source] kube::Error),
    /// It took too long.
    #[error("not done within {DEADLINE:?}")]
    Timeout,
}

/// Reconciles one Function, and says when to do so again though nothing changes.
///
/// Not cancel-safe in the sense of a transaction, and need not be: every write is one that the next call, from whatever
/// state it finds, would make again or find made.
pub async fn reconcile(context: Arc<Context>, key: FunctionKey) -> Option<Instant> {
    let Some(guarded) = context.caches.functions.get(&key, &key.name) else {
        context.forget(&key);
        return None;
    };
    let function = match &guarded.0 {
        Ok(function) => function,
        Err(invalid) => {
            tracing::warn!(function = %key, error = %invalid.error, "A Function cannot be read; it is left alone until it is changed");
            let reference = kube::Resource::object_ref(&*guarded, &());
            context
                .events
                .warning(&reference, INVALID, &format!("Rouse cannot read this object: {}", invalid.error))
                .await;
            return None;
        }
    };
    if function.metadata.deletion_timestamp.is_some() {
        // What it owns goes with it; making it anew would only keep the garbage collector busy.
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
    let wait = backoff::RECONCILE.after(failures);
    tracing::warn!(function = %key, %error, failures, retry_in = ?wait, "A Function could not be reconciled and will be tried again");
    let retry = Instant::now() + wait;
    Some(again.map_or(retry, |again| again.min(retry)))
}

/// What came of the five steps.
struct Steps {
    /// After how long to look again though nothing changes.
    again: Option<Duration>,
    /// What could not be done.
    failed: Option<Error>,
}

/// The five steps.
async fn steps(context: &Context, key: &FunctionKey, function: &Function) -> Result<Steps, Error> {
    let found = dereference::dereference(context, key, function);
    context.outcomes.keep(key, |revision| found.workloads.deployments.contains_key(revision));
    let prepared = validate::validate(function).and_then(|valid| build::build(&valid, &found, &context.names));
    let applied = match prepared {
        Ok(resources) => Ok(apply::apply(context, key, function, resources).await?),
        Err(invalid) => Err(invalid),
    };
    let again = update_status::update_status(context, key, function, &found, &applied).await.map_err(Error::Status)?;
    let failed = applied.ok().and_then(|resources| resources.state.failed).map(Error::Apply);
    Ok(Steps { again, failed })
}
