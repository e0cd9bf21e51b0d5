//! Rollout state machine: moves the traffic of the latest revision from the stable revision to a new one, step by step.
//! Pure.
//!
//! The state is stored in `status.rollout`, so another operator continues where the previous one stopped. A rollout
//! goes from the last revision that received all of this traffic to the newest one and skips those in between.

pub mod analysis;
pub mod baselines;
pub mod pods;

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use rouse_crds::{
    FunctionSpec,
    function::{FunctionStatus, RolloutPhase, RolloutSpec, RolloutStatus},
};
use serde_json::json;

use crate::spec::canonical::hash;
use crate::workloads::{observe::RevisionState, outcomes::RequestStats};

/// Interval of the analysis during a step.
const ANALYSIS_INTERVAL: Duration = Duration::from_secs(1);

/// Inputs of [`next`].
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Rollout settings.
    pub spec: &'a RolloutSpec,
    /// Previous rollout status.
    pub former: Option<&'a RolloutStatus>,
    /// Revision that last received all traffic of the latest revision; see [`stable`].
    pub stable: Option<&'a str>,
    /// Newest revision.
    pub latest: &'a str,
    /// Whether the newest revision may receive traffic: a pod became ready, or verification is skipped.
    pub verified: bool,
    /// State of the newest revision.
    pub state: &'a RevisionState,
    /// Ready pods of `stable` that serve traffic of the latest revision.
    pub stable_pods: u32,
    /// Pods that are started for verification; 0 skips it.
    pub verification_pods: u32,
    /// Maximum number of pods.
    pub max: u32,
    /// Time in which a pod has to become ready.
    pub cold_start: Duration,
    /// Requests of the newest revision since the start of its step.
    pub stats: &'a RequestStats,
    /// Current time.
    pub now: Timestamp,
}

/// Split of the latest revision's traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Revision that receives the rest.
    pub from: String,
    /// Revision that is rolled out, and its percentage from 1 to 99.
    pub to: Option<(String, u32)>,
}

impl Split {
    /// Sends all traffic to one revision.
    pub fn all(revision: &str) -> Self {
        Self { from: revision.to_owned(), to: None }
    }
}

/// Result of [`next`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// `status.rollout`.
    pub rollout: Option<RolloutStatus>,
    /// Split of the latest revision's traffic.
    pub split: Split,
    /// Time after which to reconcile again without an event.
    pub requeue_after: Option<Duration>,
}

/// Returns the revision that receives, or last received, all traffic of the latest revision. `None` for a Function
/// without a previous revision.
///
/// If traffic goes to the latest revision (`routed`), a revision that had no traffic as the latest, but perhaps a tag,
/// does not qualify. Otherwise a revision that was only tested by its tag would receive all traffic at once.
pub fn stable(former: &FunctionStatus, routed: bool, exists: impl Fn(&str) -> bool) -> Option<String> {
    if let Some(rollout) = former.rollout.as_ref().filter(|r| exists(&r.from)) {
        return Some(rollout.from.clone());
    }
    let alive = || former.traffic.iter().filter(|share| exists(&share.revision));
    let most = alive().filter(|share| share.latest && (share.percent > 0 || !routed)).max_by_key(|share| share.percent);
    most.or_else(|| alive().max_by_key(|share| share.percent)).map(|share| share.revision.clone())
}

/// Returns the number of pods that a new revision needs for its first step, while `ready` pods of `stable` serve the
/// traffic.
pub fn initial_pods(spec: &FunctionSpec, stable: &str, ready: u32) -> u32 {
    let wanted = spec.traffic.as_deref().unwrap_or_default();
    let stable_pods = pods::serving_latest(wanted, stable, ready);
    pods::for_percent(0, next_percent(&spec.rollout(), 0), stable_pods, 0).min(spec.scaling().max())
}

/// Computes the next state of a rollout.
pub fn next(inputs: &Inputs<'_>) -> Next {
    let latest = inputs.latest;
    let Some(stable) = inputs.stable.filter(|stable| *stable != latest) else {
        return Next { rollout: None, split: Split::all(latest), requeue_after: None };
    };
    let former = inputs.former.filter(|former| former.revision == latest && former.from == stable);
    let terms = terms_hash(inputs.spec);
    let mut status = match former {
        Some(former) if former.phase == RolloutPhase::Progressing => former.clone(),
        Some(ended) if ended.terms.as_ref() == Some(&terms) => {
            return Next { rollout: Some(ended.clone()), split: Split::all(stable), requeue_after: None };
        }
        _ => RolloutStatus { revision: latest.to_owned(), from: stable.to_owned(), ..RolloutStatus::default() },
    };
    let percent = u32::try_from(status.percent).unwrap_or(0).min(99);
    if percent == 0 {
        return verify(inputs, status);
    }
    if let Some(violation) = violation(inputs) {
        status.percent = 0;
        status.since = Some(whole_second(inputs.now));
        status.pods = None;
        status.phase = RolloutPhase::Aborted;
        status.message = Some(format!(
            "Aborted at {percent}% of the traffic for {latest}: {violation}. All traffic returned to {stable}."
        ));
        status.terms = Some(terms);
        return Next { rollout: Some(status), split: Split::all(stable), requeue_after: None };
    }
    // Without steps, after their removal, and on the way to a step, there is no interval to wait for.
    let interval = if is_partial(inputs.spec, percent) { Duration::ZERO } else { inputs.spec.interval() };
    let Some(over) = elapsed(&status, inputs.now).checked_sub(interval) else {
        let left = interval.saturating_sub(elapsed(&status, inputs.now));
        return hold(inputs, status, Some(left));
    };
    advance(inputs, status, over)
}

/// Phase before the first step: waits until the revision is verified ready and has enough pods for the first step.
fn verify(inputs: &Inputs<'_>, mut status: RolloutStatus) -> Next {
    let failing = inputs.state.failure.is_some() && inputs.state.ready == 0;
    let verification_pods = if inputs.verified { 0 } else { inputs.verification_pods.min(1) };
    let wanted = pods::for_percent(0, next_percent(inputs.spec, 0), inputs.stable_pods, 0)
        .max(verification_pods)
        .min(inputs.max);
    let previous = status.pods.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    status.pods = Some(count(wanted.max(previous).min(inputs.max)));
    if !inputs.verified || failing {
        status.since = None;
        return hold(inputs, status, None);
    }
    status.since.get_or_insert_with(|| whole_second(inputs.now));
    let ready_for = elapsed(&status, inputs.now);
    advance(inputs, status, ready_for)
}

/// Takes the next step, which has been due for `overdue`, as soon as there are enough pods. If not all of them are ready after
/// `cold_start`, the revision receives the part of the step that the ready pods serve, and more with each further pod.
fn advance(inputs: &Inputs<'_>, mut status: RolloutStatus, overdue: Duration) -> Next {
    let percent = u32::try_from(status.percent).unwrap_or(0);
    let following = next_percent(inputs.spec, percent);
    let ready = inputs.state.ready;
    let pods = match status.pods.and_then(|n| u32::try_from(n).ok()) {
        // Computed once per step, because the pods that are created for it would raise the number.
        Some(pods) => pods,
        None => pods::for_percent(percent, following, inputs.stable_pods, ready).min(inputs.max),
    };
    if ready < pods {
        status.pods = Some(count(pods));
        let left = inputs.cold_start.saturating_sub(overdue);
        if !left.is_zero() && !is_partial(inputs.spec, percent) {
            return hold(inputs, status, Some(left));
        }
        let part = u32::try_from(u64::from(following) * u64::from(ready) / u64::from(pods)).unwrap_or(0);
        if part > percent {
            status.percent = count(part);
            status.since = Some(whole_second(inputs.now));
        }
        return hold(inputs, status, None);
    }
    if following == 100 {
        return Next { rollout: None, split: Split::all(inputs.latest), requeue_after: None };
    }
    status.percent = count(following);
    status.since = Some(whole_second(inputs.now));
    status.pods = None;
    hold(inputs, status, Some(inputs.spec.interval()))
}

/// Holds the percentage in `status` and requeues after `left`, or earlier for analysis.
fn hold(inputs: &Inputs<'_>, status: RolloutStatus, left: Option<Duration>) -> Next {
    let percent = u32::try_from(status.percent).unwrap_or(0);
    let to = Some((status.revision.clone(), percent)).filter(|(_, percent)| *percent > 0);
    let split = Split { from: status.from.clone(), to };
    let analysis = (percent > 0 && inputs.spec.abort_on.is_some()).then_some(ANALYSIS_INTERVAL);
    let requeue_after = [left, analysis].into_iter().flatten().min();
    Next { rollout: Some(status), split, requeue_after }
}

/// Returns why a revision with traffic has to be rolled back.
fn violation(inputs: &Inputs<'_>) -> Option<String> {
    let state = inputs.state;
    // Insufficient capacity is no fault of the revision: its requests are queued as in a cold start.
    let permanent = state.ready == 0 && state.transient.is_none();
    if let Some(failure) = state.failure.as_ref().filter(|_| permanent) {
        return Some(format!("no pod is ready ({}: {})", failure.reason, failure.message));
    }
    analysis::find_violation(inputs.spec.abort_on.as_ref()?, inputs.stats)
}

/// Returns whether `percent` is a part of a step, whose other pods are not ready yet.
fn is_partial(spec: &RolloutSpec, percent: u32) -> bool {
    percent > 0 && !spec.steps().iter().any(|step| u32::try_from(*step) == Ok(percent))
}

/// Returns the percentage of the step after `percent`.
fn next_percent(spec: &RolloutSpec, percent: u32) -> u32 {
    let steps = spec.steps().iter().filter_map(|step| u32::try_from(*step).ok());
    steps.filter(|step| *step > percent && *step < 100).min().unwrap_or(100)
}

/// Hash of the settings that can abort a rollout. A change restarts an aborted rollout.
fn terms_hash(spec: &RolloutSpec) -> String {
    hash(&json!({"steps": spec.steps, "interval": spec.interval, "abortOn": spec.abort_on}))
}

/// Time since the start of the step. Zero if the clock of the previous operator was ahead.
fn elapsed(status: &RolloutStatus, now: Timestamp) -> Duration {
    let since = status.since.as_ref().map_or(now, |since| since.0);
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Rounds to whole seconds, as times in a status are.
fn whole_second(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

fn count(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
