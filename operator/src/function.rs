//! A Function becomes objects, in five steps with one file each:
//!
//! **dereference** (read what it refers to, from the caches) → **validate** (pure; what the schema cannot say) → **build**
//! (pure; what is to be written) → **apply** (write it) → **update_status** (say what is).
//!
//! Nothing is written when nothing has changed: all comparisons are with the caches, so a resync costs no call at all.

pub mod apply;
pub mod baselines;
pub mod build;
pub mod conditions;
pub mod config;
pub mod dereference;
#[cfg(test)]
mod fake_api;
pub mod observe;
#[cfg(test)]
mod properties;
pub mod rollout;
pub mod shares;
pub mod tell;
pub mod traffic;
pub mod update_status;
pub mod validate;

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use rouse_crds::{Function, conditions::INVALID, hosts::HostTemplate};
use tokio::time::Instant;

use crate::{
    backoff, caches::Caches, children::CompactJson, events::Events, hosts::Claims, key::FunctionKey, metrics::Metrics,
    outcomes::Outcomes,
};
use baselines::Baselines;
use update_status::LastWritten;

/// No reconcile takes longer; one that does is given up and tried again.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the five steps need beside the Function.
#[derive(Clone, Debug)]
pub struct Names {
    /// Default hosts.
    pub hosts: HostTemplate,
    /// By what the ingress answers.
    pub scheme: Scheme,
    /// Domain of the cluster's own names.
    pub cluster_domain: String,
    /// Where the activators' Service is.
    pub namespace: String,
    /// The activators' Service.
    pub activator_service: String,
}

/// By what the ingress answers, as far as the URLs in a status say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// With TLS.
    Https,
}

impl Names {
    /// Where the ingress answers for a host.
    pub fn url(&self, host: &str) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{host}")
    }

    /// The activators' Service for an ingress that has to speak HTTP/2 to them: the same pods and port, declared as h2c.
    /// A Service of its own, because some ingress controllers take the protocol from an annotation of the whole Service.
    pub fn h2c_service(&self) -> String {
        format!("{}-h2c", self.activator_service)
    }
}

/// What a reconcile works with.
#[allow(missing_debug_implementations, reason = "kube's Client and Recorder have none of use")]
pub struct Context {
    /// For writes; everything that is read comes from `caches`.
    pub client: kube::Client,
    /// What there is.
    pub caches: Caches,
    /// Who owns which custom host.
    pub claims: Claims,
    /// Domains and the activators' Service.
    pub names: Names,
    /// Tells users of transitions.
    pub events: Events,
    /// Counts.
    pub metrics: Metrics,
    /// How the calls of revisions ended.
    pub outcomes: Arc<Outcomes>,
    /// The time of the cluster's clocks.
    pub clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where the present steps of roll-outs began.
    baselines: Baselines,
    /// Failures in a row of each Function; one that succeeds or is gone is taken out.
    failures: Mutex<HashMap<FunctionKey, u32>>,
    /// Statuses that were written and have not come back through the watch yet.
    written: Mutex<HashMap<FunctionKey, LastWritten>>,
    /// What a Deployment looked like after it was repaired in vain: something in the cluster insists on it.
    insisted: Mutex<HashMap<String, CompactJson>>,
}

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

impl Context {
    /// A context that remembers nothing yet.
    pub fn new(
        client: kube::Client,
        caches: Caches,
        claims: Claims,
        names: Names,
        events: Events,
        metrics: Metrics,
        outcomes: Arc<Outcomes>,
    ) -> Self {
        Self {
            client,
            caches,
            claims,
            names,
            events,
            metrics,
            outcomes,
            clock: Box::new(Timestamp::now),
            baselines: Baselines::default(),
            failures: Mutex::default(),
            written: Mutex::default(),
            insisted: Mutex::default(),
        }
    }

    fn forget(&self, key: &FunctionKey) {
        self.failures.lock().remove(key);
        self.written.lock().remove(key);
        self.baselines.forget(key);
        if let Some(configs) = &self.caches.configs {
            configs.watch(key, []);
        }
        self.outcomes.keep(key, |_| false);
    }
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
    context.outcomes.keep(key, |revision| found.deployments.contains_key(revision));
    let prepared = validate::validate(function).and_then(|valid| build::build(&valid, &found, &context.names));
    let applied = match prepared {
        Ok(resources) => Ok(apply::apply(context, key, function, resources).await?),
        Err(invalid) => Err(invalid),
    };
    let again = update_status::update_status(context, key, function, &found, &applied).await.map_err(Error::Status)?;
    let failed = applied.ok().and_then(|resources| resources.state.failed).map(Error::Apply);
    Ok(Steps { again, failed })
}
