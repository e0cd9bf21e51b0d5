//! The next step of a wake task.

use std::{sync::Arc, time::Duration};

use rouse_crds::pod::PodFailure;
use tokio::time::Instant;

use super::{
    policy::Policy,
    rejection::Rejection,
    state::{Breaker, BreakerState, Effects, Revision, Wake},
    wake_tokens::Tokens,
};
use crate::{backoff::jitter, wake::WakeError};

/// The next step of a wake task.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// The queue is empty.
    Done,
    /// Nothing to do before this time.
    Wait(Instant),
    /// Wake this revision.
    Wake {
        /// Name of the revision.
        revision: Box<str>,
        /// Number of pods.
        replicas: u32,
    },
}

/// How often ramp limits are raised.
pub(super) const RAMP_INTERVAL: Duration = Duration::from_millis(100);
/// How long a revision that was woken may take to show a pod before it is woken again. An operator that takes the last pod
/// away in the same moment undoes a wake; asking again is cheap, and valid only at zero.
const AGAIN: Duration = Duration::from_secs(1);
/// The same when the count was not zero, at first: most likely the last pod is just going.
const AWAKE_AGAIN: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// After a conflict or an overload.
const BUSY_AGAIN: Duration = Duration::from_millis(50);
const BUSY_LONGEST: Duration = Duration::from_secs(2);
/// While there is no Deployment yet.
const MISSING_AGAIN: Duration = Duration::from_millis(250);
const MISSING_LONGEST: Duration = Duration::from_secs(2);
/// While the throttles allow no wake in time.
const NO_PERMIT_AGAIN: Duration = Duration::from_secs(1);
/// Nothing is due; a change notifies the wake task.
const NOTHING_DUE: Duration = Duration::from_secs(60);

impl BreakerState {
    pub(super) fn woken(&mut self, now: Instant, name: &str, result: Result<(), WakeError>, effects: &mut Effects) {
        let Some(revision) = self.revisions.iter_mut().find(|r| *r.name == *name) else { return };
        let tries = revision.wake.tries;
        revision.wake.tries = tries.saturating_add(1);
        let delay = match result {
            Ok(()) => {
                revision.wake.acknowledged = Some(now);
                revision.wake.awaits_pod = true;
                revision.wake.tokens = Tokens::default();
                self.last_wake = Some(now);
                jitter(AGAIN, tries, LONGEST)
            }
            Err(WakeError::Awake) => {
                revision.wake.acknowledged = Some(now);
                revision.wake.awaits_pod = true;
                // Its count stands, and the operator says that it comes to nothing: that is of now.
                if let Some(failure) = self.pod_creation_failure.clone().filter(|_| revision.trackers.is_empty()) {
                    let rejection = revision.health.record_failure(now, failure);
                    self.refuse(name, &rejection, effects);
                    return;
                }
                jitter(AWAKE_AGAIN, tries, LONGEST)
            }
            Err(WakeError::Missing) => jitter(MISSING_AGAIN, tries, MISSING_LONGEST),
            Err(WakeError::Busy { after, .. }) => {
                jitter(BUSY_AGAIN, tries, BUSY_LONGEST).max(after.unwrap_or_default().min(LONGEST))
            }
            Err(WakeError::Denied { reason, message }) => {
                let rejection = revision.health.record_failure(now, PodFailure { reason, message });
                revision.wake = Wake::default();
                self.refuse(name, &rejection, effects);
                return;
            }
        };
        revision.wake.next = Some(now + delay);
    }

    /// Rejects all queued requests of a revision.
    pub(super) fn refuse(&mut self, name: &str, rejection: &Rejection, effects: &mut Effects) {
        if let Some(revision) = self.revisions.iter_mut().find(|r| *r.name == *name) {
            let waiting = std::mem::take(&mut revision.queue);
            for waiter in waiting.into_values() {
                self.waiting.remove(&waiter.reservation);
                revision.account.leave();
                if matches!(rejection, Rejection::Failing { .. }) {
                    revision.account.record_outcome(true, None);
                }
                effects.rejections.push((waiter.sender, rejection.clone(), waiter.reservation.is_none()));
            }
        }
    }
}

impl Revision {
    /// Resets the wake state after the first pod was created or the last one removed.
    pub(super) fn reset_wake(&mut self) {
        self.wake.next = None;
        self.wake.tries = 0;
        self.wake.awaits_pod = false;
    }

    /// Tells demand whether what is queued is held because its wake is due at `turn` only. If a pod is on its way, the
    /// requests are what it must not be removed for.
    pub(super) fn hold_until(&self, turn: Option<Instant>, now: Instant) {
        self.account.hold(turn.is_none_or(|turn| turn > now) && !self.wake.awaits_pod);
    }
}

impl Breaker {
    /// Returns the next step of the wake task.
    pub fn step(self: &Arc<Self>) -> Step {
        let policy = self.policy();
        self.with(|inner, effects| {
            let now = Instant::now();
            let mut until = now + NOTHING_DUE;
            for index in 0..inner.revisions.len() {
                match self.step_of(inner, effects, index, &policy, now) {
                    Step::Wait(moment) => until = until.min(moment),
                    Step::Done => {}
                    wake @ Step::Wake { .. } => return wake,
                }
            }
            if inner.waiting.requests == 0 {
                inner.wake_task_running = false;
                return Step::Done;
            }
            Step::Wait(until)
        })
    }

    /// Returns the next step for one revision.
    fn step_of(
        &self,
        inner: &mut BreakerState,
        effects: &mut Effects,
        index: usize,
        policy: &Policy,
        now: Instant,
    ) -> Step {
        let revision = &mut inner.revisions[index];
        if revision.queue.is_empty() {
            return Step::Done;
        }
        if let Some(rejection) = revision.check_failing(now) {
            tracing::info!(function = %self.id(), revision = %revision.name, ?rejection, "All pods of the revision fail; rejecting queued requests");
            let name = revision.name.clone();
            inner.refuse(&name, &rejection, effects);
            return Step::Done;
        }
        if revision.live().next().is_some() {
            revision.account.hold(false);
            let ramps = revision.trackers.iter().any(|tracker| tracker.serving && tracker.ramp_limit < u32::MAX);
            let ramp = ramps.then_some(now + RAMP_INTERVAL);
            let fails = revision.live().filter_map(|tracker| tracker.fails_at(now)).min();
            return ramp.into_iter().chain(fails).min().map_or(Step::Done, Step::Wait);
        }
        if revision.name.is_empty() {
            return Step::Done;
        }
        // Not too soon after a failure or after the last try. Only then is a turn taken, since a pod may come before.
        if let Some(due) = revision.health.retry_at().max(revision.wake.next).filter(|due| *due > now) {
            return Step::Wait(due);
        }
        let turn = self.reserve_wake(inner, index, now, policy.cold_start);
        // Before the patch is sent: from now on the autoscaler may start the pods too.
        inner.revisions[index].hold_until(turn.as_ref().ok().copied(), now);
        match turn {
            Ok(turn) if turn > now => return Step::Wait(turn),
            Ok(_) => {}
            Err(_) => return Step::Wait(now + NO_PERMIT_AGAIN),
        }
        let revision = &mut inner.revisions[index];
        let replicas = policy.wake_replicas();
        revision.wake.asked = replicas;
        Step::Wake { revision: revision.name.clone(), replicas }
    }
}
