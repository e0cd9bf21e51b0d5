//! How a new revision takes over the calls that go to the latest, step by step. Pure.
//!
//! All that is remembered stands in `status.rollout`, so that a successor goes on where a dead operator stopped. A roll-out
//! goes from the last revision that had all of these calls to the newest one; those between are skipped.

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
use crate::workloads::{observe::RevisionState, outcomes::Figures};

/// How often a step is looked at that is judged.
const JUDGE_EVERY: Duration = Duration::from_secs(1);

/// What the next state is decided from.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// What the user wants.
    pub spec: &'a RolloutSpec,
    /// What was said before.
    pub former: Option<&'a RolloutStatus>,
    /// The revision that had all calls to the latest last; see [`stable`].
    pub stable: Option<&'a str>,
    /// The newest revision.
    pub latest: &'a str,
    /// Whether the newest may have calls: a pod of it has been ready, or none is to be started for that.
    pub proven: bool,
    /// How the newest is.
    pub state: &'a RevisionState,
    /// Pods of `stable` that are ready and serve calls to the latest.
    pub need: u32,
    /// Pods that prove the newest: 0 if none is started for that.
    pub proof: u32,
    /// Never more pods.
    pub max: u32,
    /// How long a pod may take to get ready.
    pub cold_start: Duration,
    /// The newest one's calls since it got its share.
    pub figures: &'a Figures,
    /// The time.
    pub now: Timestamp,
}

/// Who has the calls to the latest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Has what the other has not.
    pub from: String,
    /// The revision that is to take over, and its share in percent, from 1 to 99.
    pub to: Option<(String, u32)>,
}

impl Split {
    /// All to one revision.
    pub fn all(revision: &str) -> Self {
        Self { from: revision.to_owned(), to: None }
    }
}

/// What holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// For the status.
    pub rollout: Option<RolloutStatus>,
    /// Who has the calls to the latest.
    pub split: Split,
    /// After how long to look again though nothing changes.
    pub look_again: Option<Duration>,
}

/// The revision that has, or had last, all calls to the latest. `None` for a Function without a former revision.
///
/// One that had no calls under that name, but perhaps a tag, is not it where calls are to go to the latest (`called`): else
/// what was only looked at would get all of them at once when it is called.
pub fn stable(former: &FunctionStatus, called: bool, exists: impl Fn(&str) -> bool) -> Option<String> {
    if let Some(rollout) = former.rollout.as_ref().filter(|r| exists(&r.from)) {
        return Some(rollout.from.clone());
    }
    let alive = || former.traffic.iter().filter(|share| exists(&share.revision));
    let most = alive().filter(|share| share.latest && (share.percent > 0 || !called)).max_by_key(|share| share.percent);
    most.or_else(|| alive().max_by_key(|share| share.percent)).map(|share| share.revision.clone())
}

/// Pods that the first share of a new revision needs, when `ready` pods of `stable` have the calls now.
pub fn pods_to_begin(spec: &FunctionSpec, stable: &str, ready: u32) -> u32 {
    let wanted = spec.traffic.as_deref().unwrap_or_default();
    let need = pods::need(wanted, stable, ready);
    pods::before(0, following(&spec.rollout(), 0), need, 0).min(spec.scaling().max())
}

/// The next state.
pub fn next(inputs: &Inputs<'_>) -> Next {
    let latest = inputs.latest;
    let Some(stable) = inputs.stable.filter(|stable| *stable != latest) else {
        return Next { rollout: None, split: Split::all(latest), look_again: None };
    };
    let former = inputs.former.filter(|former| former.revision == latest && former.from == stable);
    let terms = terms(inputs.spec);
    let mut status = match former {
        Some(former) if former.phase == RolloutPhase::Progressing => former.clone(),
        Some(ended) if ended.terms.as_ref() == Some(&terms) => {
            return Next { rollout: Some(ended.clone()), split: Split::all(stable), look_again: None };
        }
        _ => RolloutStatus { revision: latest.to_owned(), from: stable.to_owned(), ..RolloutStatus::default() },
    };
    let percent = u32::try_from(status.percent).unwrap_or(0).min(99);
    if percent == 0 {
        return prove(inputs, status);
    }
    if let Some(why) = against(inputs) {
        status.percent = 0;
        status.since = Some(second(inputs.now));
        status.pods = None;
        status.phase = RolloutPhase::Aborted;
        status.message = Some(format!("{latest} had {percent}% of the calls: {why}. They went back to {stable}."));
        status.terms = Some(terms);
        return Next { rollout: Some(status), split: Split::all(stable), look_again: None };
    }
    // Without steps (any more) there is nothing to wait for.
    let interval = if inputs.spec.steps().is_empty() { Duration::ZERO } else { inputs.spec.interval() };
    let Some(over) = passed(&status, inputs.now).checked_sub(interval) else {
        let left = interval.saturating_sub(passed(&status, inputs.now));
        return stay(inputs, status, Some(left));
    };
    advance(inputs, status, over)
}

/// A revision without calls: it gets its first share when it has been ready, and there are pods enough for that share.
fn prove(inputs: &Inputs<'_>, mut status: RolloutStatus) -> Next {
    let failing = inputs.state.failure.is_some() && inputs.state.ready == 0;
    let proof = if inputs.proven { 0 } else { inputs.proof.min(1) };
    let wanted = pods::before(0, following(inputs.spec, 0), inputs.need, 0).max(proof).min(inputs.max);
    let before = status.pods.and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    status.pods = Some(count(wanted.max(before).min(inputs.max)));
    if !inputs.proven || failing {
        status.since = None;
        return stay(inputs, status, None);
    }
    status.since.get_or_insert_with(|| second(inputs.now));
    let ready_for = passed(&status, inputs.now);
    advance(inputs, status, ready_for)
}

/// The next share is due for `over`: it is given as soon as there are pods enough for it, and after a cold start's time
/// with those that there are.
fn advance(inputs: &Inputs<'_>, mut status: RolloutStatus, over: Duration) -> Next {
    let percent = u32::try_from(status.percent).unwrap_or(0);
    let following = following(inputs.spec, percent);
    let ready = inputs.state.ready;
    let pods = match status.pods.and_then(|n| u32::try_from(n).ok()) {
        // Counted once: the pods that are made for it would raise it.
        Some(pods) => pods,
        None => pods::before(percent, following, inputs.need, ready).min(inputs.max),
    };
    if ready < pods && (over < inputs.cold_start || ready == 0) {
        status.pods = Some(count(pods));
        let left = inputs.cold_start.saturating_sub(over);
        return stay(inputs, status, Some(left).filter(|left| !left.is_zero()));
    }
    if following == 100 {
        return Next { rollout: None, split: Split::all(inputs.latest), look_again: None };
    }
    status.percent = count(following);
    status.since = Some(second(inputs.now));
    status.pods = None;
    stay(inputs, status, Some(inputs.spec.interval()))
}

/// The share stays, or is the new one, and is looked at again after `left`, or sooner to be judged.
fn stay(inputs: &Inputs<'_>, status: RolloutStatus, left: Option<Duration>) -> Next {
    let share = u32::try_from(status.percent).unwrap_or(0);
    let split =
        Split { from: status.from.clone(), to: Some((status.revision.clone(), share)).filter(|(_, share)| *share > 0) };
    let judged = (share > 0 && inputs.spec.abort_on.is_some()).then_some(JUDGE_EVERY);
    let look_again = [left, judged].into_iter().flatten().min();
    Next { rollout: Some(status), split, look_again }
}

/// What speaks against a revision that has calls.
fn against(inputs: &Inputs<'_>) -> Option<String> {
    let state = inputs.state;
    // One without a pod for want of room is as good as it was; its calls wait as those of a cold start do.
    let lasting = state.ready == 0 && state.passing.is_none();
    if let Some(failure) = state.failure.as_ref().filter(|_| lasting) {
        return Some(format!("none of its pods is ready ({}: {})", failure.reason, failure.message));
    }
    analysis::judge(inputs.spec.abort_on.as_ref()?, inputs.figures)
}

/// The share after `percent`.
fn following(spec: &RolloutSpec, percent: u32) -> u32 {
    let steps = spec.steps().iter().filter_map(|step| u32::try_from(*step).ok());
    steps.filter(|step| *step > percent && *step < 100).min().unwrap_or(100)
}

/// A mark of everything by which a roll-out may be ended.
fn terms(spec: &RolloutSpec) -> String {
    hash(&json!({"steps": spec.steps, "interval": spec.interval, "abortOn": spec.abort_on}))
}

/// How long the state has lasted. Whoever wrote it may have had a clock that is ahead of ours.
fn passed(status: &RolloutStatus, now: Timestamp) -> Duration {
    let since = status.since.as_ref().map_or(now, |since| since.0);
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// Times in a status are whole seconds.
fn second(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

fn count(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
