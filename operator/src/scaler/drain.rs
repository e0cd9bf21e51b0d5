//! Draining of pods before a scale-down. Pure: time is a [`Duration`] since any fixed origin.
//!
//! Kubernetes receives a count and selects the pods to delete: those that are not assigned to a node first, then those that
//! are pending, those that are not ready, and among ready ones those with the lowest deletion cost. Therefore
//! - victims are selected in that order, and within it by their number of requests, and get a low deletion cost, whereupon
//!   the activators send them no new requests;
//! - drained victims get a lower cost than victims with requests, if there are both;
//! - the count is lowered only as far as all pods that Kubernetes would delete are drained, by the costs that the watch has
//!   shown.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use kube::ResourceExt as _;
use rouse_crds::{names::POD_DELETION_COST_ANNOTATION, pod::FunctionPod};

use super::aggregate::{MAX_FRAME_AGE, PodReport};

/// Deletion cost of a victim: lower than that of any pod that stays.
pub const VICTIM_COST: i64 = -1000;

/// Deletion cost of a drained victim while other victims have requests.
pub const DRAINED_COST: i64 = -2000;

/// Time after which an activator that does not report a marked pod has seen the mark and has no request in the pod: each
/// activator sends a frame within this time, or nothing is scaled down at all.
const REPORT_DELAY: Duration = MAX_FRAME_AGE;

/// The next step of a scale-down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Pods to mark, and their deletion costs.
    pub mark: Vec<(String, i64)>,
    /// Marked pods that stay.
    pub unmark: Vec<String>,
    /// The count that may be written now.
    pub replicas: u32,
}

/// Returns the step from `desired` towards `to` for these pods. `to` may be higher than `desired`: then former victims are
/// unmarked. `in_flight` returns the number of requests in a pod, `drained` whether a marked pod may be deleted.
///
/// A scale to zero deletes all pods, so nothing is marked.
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
        // A marked pod stays a victim: it has fewer requests than when it was selected.
        (*rank, *cost >= 0, in_flight(&pod.name_any()), Reverse(created), pod.name_any())
    });
    let (victims, others) = order.split_at(order.len().saturating_sub(keep));
    let unmark = others.iter().filter(|(.., cost)| *cost < 0).map(|(pod, ..)| pod.name_any()).collect();
    if to >= desired {
        return Step { mark: Vec::new(), unmark, replicas: to };
    }
    let done: Vec<bool> = victims.iter().map(|(pod, _, cost)| *cost < 0 && drained(&pod.name_any())).collect();
    let all = done.iter().all(|done| *done);
    let mark = victims.iter().zip(&done).filter_map(|((pod, _, cost), done)| {
        let wanted = if *done && !all { DRAINED_COST } else { VICTIM_COST };
        (*cost > wanted).then(|| (pod.name_any(), wanted))
    });
    let mark = mark.collect();
    // Kubernetes may delete any of the pods with the same rank and cost.
    let mut choice: Vec<_> =
        order.iter().enumerate().map(|(n, (_, rank, cost))| ((*rank, *cost), done.get(n) == Some(&true))).collect();
    choice.sort_unstable_by_key(|(class, _)| *class);
    let deletable = choice.chunk_by(|a, b| a.0 == b.0).take_while(|class| class.iter().all(|(_, done)| *done));
    let deletable: usize = deletable.map(<[_]>::len).sum();
    let remaining = u32::try_from(pods.len().saturating_sub(deletable)).unwrap_or(u32::MAX);
    Step { mark, unmark, replicas: remaining.max(to).min(desired) }
}

/// Order in which Kubernetes deletes pods, regardless of their cost: lowest first.
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

/// Returns whether a pod that was marked `elapsed` ago may be deleted, by the reports of the activators; if not, the time
/// after which this can change without a new report. After `timeout` the pod's termination grace period has to suffice.
///
/// # Errors
///
/// That time.
pub fn drained(elapsed: Duration, reports: &[PodReport], in_flight: u64, timeout: Duration) -> Result<(), Duration> {
    let remaining = timeout.saturating_sub(elapsed);
    if remaining.is_zero() {
        return Ok(());
    }
    let mut absent = false;
    for report in reports {
        match report {
            PodReport::Present { draining: true, .. } => {}
            PodReport::Present { .. } | PodReport::Unknown => return Err(remaining),
            PodReport::Absent => absent = true,
        }
    }
    match REPORT_DELAY.saturating_sub(elapsed) {
        _ if in_flight > 0 => Err(remaining),
        delay if absent && !delay.is_zero() => Err(delay.min(remaining)),
        _ => Ok(()),
    }
}

/// The victims of one revision. Bounded by its pods.
#[derive(Debug, Default)]
pub struct DrainTracker {
    victims: Vec<Victim>,
}

#[derive(Debug)]
struct Victim {
    pod: String,
    /// Time since which the watch has shown a negative cost.
    marked_since: Option<Duration>,
    /// Last written cost and the time of the write.
    requested: Option<(i64, Duration)>,
}

impl DrainTracker {
    /// Updates the victims from the cached pods.
    pub fn observe(&mut self, pods: &[Arc<FunctionPod>], now: Duration) {
        self.victims.retain(|victim| pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(&victim.pod)));
        for pod in pods {
            let (name, marked) = (pod.name_any(), cost(pod) < 0);
            match self.victims.iter_mut().find(|v| v.pod == name) {
                Some(victim) if marked => victim.marked_since = victim.marked_since.or(Some(now)),
                Some(victim) => victim.marked_since = None,
                None if marked => self.victims.push(Victim { pod: name, marked_since: Some(now), requested: None }),
                None => {}
            }
        }
        if self.victims.is_empty() {
            self.victims = Vec::new();
        }
    }

    /// Returns the time since which the watch has shown the pod as marked.
    pub fn marked_since(&self, pod: &str) -> Option<Duration> {
        self.victims.iter().find(|v| v.pod == pod)?.marked_since
    }

    /// Records that a cost is requested, and returns whether to write it: not if the same write was made less than
    /// `patience` ago, since the watch may lag.
    pub fn request(&mut self, pod: &str, cost: i64, now: Duration, patience: Duration) -> bool {
        let requested = Some((cost, now));
        match self.victims.iter_mut().find(|v| v.pod == pod) {
            Some(Victim { requested: Some((before, at)), .. })
                if *before == cost && now.saturating_sub(*at) < patience =>
            {
                return false;
            }
            Some(victim) => victim.requested = requested,
            None => self.victims.push(Victim { pod: pod.to_owned(), marked_since: None, requested }),
        }
        true
    }

    /// Returns the marked pods and the times since which they are marked.
    pub fn victims(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.victims.iter().filter_map(|v| Some((v.pod.as_str(), v.marked_since?)))
    }
}

#[cfg(test)]
mod tests;
