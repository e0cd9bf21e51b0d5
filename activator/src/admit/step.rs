//! What a gate's keeper is to do next.

use std::time::Duration;

use rouse_crds::pod::PodFailure;
use tokio::time::Instant;

use super::{
    Gate, Refusal,
    inner::{Effects, Inner},
    revision::Revision,
};
use crate::wake::{WakeError, jitter};

/// What a gate's keeper is to do next.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Nobody waits.
    Done,
    /// Nothing before this moment.
    Wait(Instant),
    /// Wake this revision.
    Wake {
        /// Its name.
        revision: Box<str>,
        /// With so many pods.
        replicas: u32,
    },
}

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
/// Nothing is due; something that changes kicks the keeper.
const NOTHING_DUE: Duration = Duration::from_secs(60);

impl Inner {
    pub(super) fn step(&mut self, now: Instant, replicas_for: impl Fn(usize) -> u32) -> Step {
        if self.queued == 0 {
            self.keeper = false;
            return Step::Done;
        }
        let mut until = now + NOTHING_DUE;
        for revision in &mut self.revisions {
            if revision.queue.is_empty() {
                continue;
            }
            if revision.live().next().is_some() {
                if revision.slots.iter().any(|slot| slot.serving && slot.crowd < u32::MAX) {
                    until = until.min(now + crate::wake::RAMP_INTERVAL);
                }
            } else if !revision.name.is_empty() {
                let due = revision.wake.next.unwrap_or(now);
                if due <= now {
                    let replicas = replicas_for(revision.queue.len());
                    return Step::Wake { revision: revision.name.clone(), replicas };
                }
                until = until.min(due);
            }
        }
        Step::Wait(until)
    }

    pub(super) fn woken(&mut self, now: Instant, name: &str, result: Result<(), WakeError>, effects: &mut Effects) {
        let Some(revision) = self.revisions.iter_mut().find(|r| *r.name == *name) else { return };
        let tries = revision.wake.tries;
        revision.wake.tries = tries.saturating_add(1);
        let delay = match result {
            Ok(()) => {
                revision.wake.acknowledged = Some(now);
                jitter(AGAIN, tries, LONGEST)
            }
            Err(WakeError::Awake) => {
                revision.wake.acknowledged = Some(now);
                jitter(AWAKE_AGAIN, tries, LONGEST)
            }
            Err(WakeError::Missing) => jitter(MISSING_AGAIN, tries, MISSING_LONGEST),
            Err(WakeError::Busy { after, .. }) => {
                jitter(BUSY_AGAIN, tries, BUSY_LONGEST).max(after.unwrap_or_default().min(LONGEST))
            }
            Err(WakeError::Denied { reason, message }) => {
                let refusal = revision.health.fail(now, PodFailure { reason, message });
                revision.wake = super::revision::Wake::default();
                self.refuse(name, &refusal, effects);
                return;
            }
        };
        revision.wake.next = Some(now + delay);
    }

    /// Turns away everybody who waits for a revision.
    pub(super) fn refuse(&mut self, name: &str, refusal: &Refusal, effects: &mut Effects) {
        if let Some(revision) = self.revisions.iter_mut().find(|r| *r.name == *name) {
            let waiting = std::mem::take(&mut revision.queue);
            self.queued -= waiting.len();
            for waiter in waiting.into_values() {
                self.queued_bytes -= waiter.held.bytes();
                revision.account.leave();
                effects.refusals.push((waiter.answer, refusal.clone()));
            }
        }
    }
}

impl Revision {
    /// Its last pod went, or one came: what was known about waking it no longer holds.
    pub(super) fn wake_anew(&mut self) {
        self.wake.next = None;
        self.wake.tries = 0;
    }
}

impl Gate {
    /// What its keeper is to do next.
    pub fn step(&self) -> Step {
        let policy = self.policy();
        self.lock().step(Instant::now(), |queued| policy.replicas_for(queued))
    }
}
