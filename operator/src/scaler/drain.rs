//! Pods are drained before they are deleted. Pure: time is a [`Duration`] since any fixed origin.
//!
//! Kubernetes is told a count and chooses by itself which pods go: those that are not assigned to a node first, then those
//! that are pending, those that are not ready, and among ready ones those with the lowest deletion cost. So
//! - victims are chosen in that order, and within it by how little is in them, and marked with a low cost, whereupon the
//!   activators send them nothing new;
//! - those that have nothing in them any more get a lower cost than those that still have, if there are both;
//! - the count goes down only as far as all pods that Kubernetes would choose are drained ones, by the marks that the watch
//!   has shown.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use kube::ResourceExt as _;
use rouse_crds::{names::POD_DELETION_COST_ANNOTATION, pod::FunctionPod};

use super::aggregate::{FRESH, Word};

/// The deletion cost of a pod that is to go: less than that of any that stays.
pub const MARKED: i64 = -1000;

/// The deletion cost of one that is empty, while others that are to go are not.
pub const EMPTY: i64 = -2000;

/// An activator that says nothing of a marked pod has had no request in it and has heard of the mark by then: each has
/// spoken within so long, or nothing goes down at all.
const SETTLE: Duration = FRESH;

/// What is to be done for a count to become a lower one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Pods to be marked, and with which cost.
    pub mark: Vec<(String, i64)>,
    /// Pods that are marked and stay after all.
    pub spare: Vec<String>,
    /// The count that may be asked for now.
    pub count: u32,
}

/// The step from `desired` towards `to`, which may be more as well, for the pods that live. `in_flight` says how many
/// requests are in a pod, `drained` whether a marked one may go.
///
/// When all pods go there is nothing to choose, and from zero there is nobody.
pub fn step(
    pods: &[Arc<FunctionPod>],
    desired: u32,
    to: u32,
    in_flight: impl Fn(&str) -> u64,
    drained: impl Fn(&str) -> bool,
) -> Step {
    if to == 0 {
        return Step::default();
    }
    let keep = usize::try_from(to).unwrap_or(usize::MAX);
    let mut order: Vec<_> = pods.iter().map(|pod| (pod, rank(pod), cost(pod))).collect();
    order.sort_by_cached_key(|(pod, rank, cost)| {
        let created = pod.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second());
        // One that is marked already has less in it than when it was chosen, so it stays chosen.
        (*rank, *cost >= 0, in_flight(&pod.name_any()), Reverse(created), pod.name_any())
    });
    let (victims, others) = order.split_at(order.len().saturating_sub(keep));
    let spare = others.iter().filter(|(.., cost)| *cost < 0).map(|(pod, ..)| pod.name_any()).collect();
    if to >= desired {
        return Step { mark: Vec::new(), spare, count: to };
    }
    let done: Vec<bool> = victims.iter().map(|(pod, _, cost)| *cost < 0 && drained(&pod.name_any())).collect();
    let all = done.iter().all(|done| *done);
    let mark = victims.iter().zip(&done).filter_map(|((pod, _, cost), done)| {
        let wanted = if *done && !all { EMPTY } else { MARKED };
        (*cost > wanted).then(|| (pod.name_any(), wanted))
    });
    let mark = mark.collect();
    // Of those that Kubernetes cannot tell apart it may take any.
    let mut choice: Vec<_> =
        order.iter().enumerate().map(|(n, (_, rank, cost))| ((*rank, *cost), done.get(n) == Some(&true))).collect();
    choice.sort_unstable_by_key(|(place, _)| *place);
    let free = choice.chunk_by(|a, b| a.0 == b.0).take_while(|alike| alike.iter().all(|(_, done)| *done));
    let free: usize = free.map(<[_]>::len).sum();
    let stay = u32::try_from(pods.len().saturating_sub(free)).unwrap_or(u32::MAX);
    Step { mark, spare, count: stay.max(to).min(desired) }
}

/// How soon Kubernetes lets a pod go, whatever its cost.
fn rank(pod: &FunctionPod) -> u8 {
    match pod.status.phase.as_deref() {
        _ if pod.ready() => 3,
        Some("Running") => 2,
        _ if pod.scheduled_at().is_some() => 1,
        _ => 0,
    }
}

fn cost(pod: &FunctionPod) -> i64 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|a| a.get(POD_DELETION_COST_ANNOTATION)).and_then(|c| c.parse().ok()).unwrap_or(0)
}

/// Whether a pod that has been marked for `passed` may go, for all that the activators say; if not, after how long that is
/// to be asked again though nobody says anything new. `bound` is how long it is waited for: after that the pod's own
/// termination grace has to do.
pub fn drained(passed: Duration, words: &[Word], in_flight: u64, bound: Duration) -> Result<(), Duration> {
    let left = bound.saturating_sub(passed);
    if left.is_zero() {
        return Ok(());
    }
    let mut quiet = false;
    for word in words {
        match word {
            Word::Named { draining: true, .. } => {}
            Word::Named { .. } | Word::Mute => return Err(left),
            Word::Unnamed => quiet = true,
        }
    }
    match SETTLE.saturating_sub(passed) {
        _ if in_flight > 0 => Err(left),
        settles if quiet && !settles.is_zero() => Err(settles.min(left)),
        _ => Ok(()),
    }
}

/// What is remembered of the pods of one revision that are to go. Bounded by its pods.
#[derive(Debug, Default)]
pub struct Drain {
    victims: Vec<Victim>,
}

#[derive(Debug)]
struct Victim {
    pod: String,
    /// Since when its mark has been seen.
    since: Option<Duration>,
    /// The cost that was asked for, and when.
    asked: Option<(i64, Duration)>,
}

impl Drain {
    /// Takes in which pods there are, and which of them are marked.
    pub fn see(&mut self, pods: &[Arc<FunctionPod>], now: Duration) {
        self.victims.retain(|victim| pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(&victim.pod)));
        for pod in pods {
            let (name, marked) = (pod.name_any(), cost(pod) < 0);
            match self.victims.iter_mut().find(|v| v.pod == name) {
                Some(victim) if marked => victim.since = victim.since.or(Some(now)),
                Some(victim) => victim.since = None,
                None if marked => self.victims.push(Victim { pod: name, since: Some(now), asked: None }),
                None => {}
            }
        }
        if self.victims.is_empty() {
            self.victims = Vec::new();
        }
    }

    /// Since when a pod is known to be marked.
    pub fn since(&self, pod: &str) -> Option<Duration> {
        self.victims.iter().find(|v| v.pod == pod)?.since
    }

    /// Notes that a cost is asked for. `false` if it was asked for less than `patience` ago: the watch may only be late.
    pub fn ask(&mut self, pod: &str, cost: i64, now: Duration, patience: Duration) -> bool {
        let asked = Some((cost, now));
        match self.victims.iter_mut().find(|v| v.pod == pod) {
            Some(Victim { asked: Some((before, at)), .. }) if *before == cost && now.saturating_sub(*at) < patience => {
                return false;
            }
            Some(victim) => victim.asked = asked,
            None => self.victims.push(Victim { pod: pod.to_owned(), since: None, asked }),
        }
        true
    }

    /// The pods that are marked, and since when.
    pub fn under_way(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.victims.iter().filter_map(|v| Some((v.pod.as_str(), v.since?)))
    }
}

#[cfg(test)]
mod tests;
