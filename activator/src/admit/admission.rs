//! Admission of one request: forward now, queue, or reject.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    budget::{Caps, QueueReservation},
    policy::Policy,
    rejection::{CapReached, Measure, Rejection, Scope},
    state::{Admission, Breaker, BreakerState, Effects, Permit, Ticket, Waiter},
    target::Target,
};

/// `Retry-After` of a Function that cannot be built: somebody has to change it first.
pub(super) const BUILD_RETRY: Duration = Duration::from_secs(10);

/// A request that asks for admission.
struct Arrival<'a> {
    target: &'a Target,
    /// Bytes that it would hold while queued.
    bytes: u64,
    /// Its position in the queue, and the time since which it has had that position.
    sequence: u64,
    since: Instant,
    /// It was admitted before, and its pod could not be connected to.
    readmitted: bool,
}

impl Breaker {
    /// Admits a request for `target`: grants a permit, or queues it. `bytes` is what the request holds in memory while
    /// queued, and is called only then.
    ///
    /// # Errors
    ///
    /// If the request is rejected.
    pub fn admit(self: &Arc<Self>, target: &Target, bytes: impl FnOnce() -> u64) -> Result<Admission, Rejection> {
        self.admit_at(target, bytes, None)
    }

    /// Admits a request again whose pod could not be connected to. It keeps its position, so it is the next to be
    /// granted.
    ///
    /// # Errors
    ///
    /// If the request is rejected.
    pub fn readmit(
        self: &Arc<Self>,
        target: &Target,
        bytes: impl FnOnce() -> u64,
        sequence: u64,
        arrived: Instant,
    ) -> Result<Admission, Rejection> {
        self.admit_at(target, bytes, Some((sequence, arrived)))
    }

    fn admit_at(
        self: &Arc<Self>,
        target: &Target,
        bytes: impl FnOnce() -> u64,
        readmitted: Option<(u64, Instant)>,
    ) -> Result<Admission, Rejection> {
        let admission = self.with(|inner, effects| {
            // Loaded under the lock: once a lower limit was set, nothing is granted by the previous one.
            let policy = self.policy.load();
            if inner.closed {
                return Err(Rejection::Deleted);
            }
            let now = Instant::now();
            let chosen = match target {
                Target::Traffic { affinity } => inner.choose_revision(affinity),
                Target::Revision(name) | Target::Mirror(name) => self.index_of(inner, name),
            };
            let (sequence, since) = readmitted.unwrap_or_else(|| {
                inner.sequence += 1;
                (inner.sequence, now)
            });
            let Some(revision) = inner.revisions.get_mut(chosen) else { return Err(Rejection::Deleted) };
            if revision.queue.is_empty()
                && let Some(index) = revision.pick(policy.limit, false)
                && let Some(endpoint) = revision.trackers[index].endpoint.clone()
            {
                endpoint.start_request();
                revision.account.enter_at(now);
                let account = revision.account.clone();
                let arrived = since;
                let permit = Permit {
                    breaker: self.clone(),
                    account,
                    endpoint,
                    sequence,
                    arrived,
                    cold: None,
                    responded: false,
                    granted: now,
                    unsent: false,
                    sent_at: None,
                };
                return Ok(Admission::Granted(permit));
            }
            let arrival = Arrival { target, bytes: bytes(), sequence, since, readmitted: readmitted.is_some() };
            let queued = self.enqueue(inner, effects, chosen, &policy, now, &arrival);
            if let Err(Rejection::Failing { .. }) = queued {
                // A failure of the revision's pods counts as a failed request.
                inner.revisions[chosen].account.record_outcome(true, None);
            }
            queued.map(Admission::Queued)
        });
        if let Err(rejection) = &admission
            && !matches!(target, Target::Mirror(_))
        {
            self.metrics().record_rejected(rejection.reason());
        }
        admission
    }

    fn enqueue(
        self: &Arc<Self>,
        inner: &mut BreakerState,
        effects: &mut Effects,
        chosen: usize,
        policy: &Policy,
        now: Instant,
        arrival: &Arrival<'_>,
    ) -> Result<Ticket, Rejection> {
        let revision = &mut inner.revisions[chosen];
        if let Some(rejection) = revision.check_failing(now) {
            let name = revision.name.clone();
            inner.refuse(&name, &rejection, effects);
            return Err(rejection);
        }
        let at_zero = revision.live().next().is_none();
        let failing = match (revision.failing, at_zero) {
            (true, _) => revision.health.rejection(now),
            (false, true) => revision.health.backoff_rejection(now),
            (false, false) => None,
        };
        if let Some(rejection) = failing {
            return Err(rejection);
        }
        if let Some(failure) = inner.build_failure.clone().filter(|_| at_zero) {
            return Err(Rejection::Failing { failure, retry_after: BUILD_RETRY });
        }
        if at_zero && !arrival.readmitted {
            let copy = matches!(arrival.target, Target::Mirror(_));
            let turn = self.reserve_wake(inner, chosen, now, if copy { Duration::ZERO } else { policy.cold_start })?;
            inner.revisions[chosen].hold_until(Some(turn), now);
        }
        let reservation = self.reserve_budget(inner, policy, arrival)?;
        let Arrival { target, sequence, since, .. } = *arrival;
        let (sender, receiver) = oneshot::channel();
        let revision = &mut inner.revisions[chosen];
        inner.waiting.add(&reservation);
        revision.queue.insert(sequence, Waiter { sender, arrived: since, reservation, binding: target.binding() });
        revision.account.queue();
        // A pod may have capacity for queued requests and not for new ones, or the other way round.
        inner.dispatch(self, chosen, policy.limit, effects);
        effects.start_wake_task = !std::mem::replace(&mut inner.wake_task_running, true);
        effects.notify = inner.revisions.get(chosen).is_some_and(|r| r.queue.len() == 1);
        Ok(Ticket { breaker: self.clone(), sequence, receiver, done: false })
    }

    /// Reserves what a queued request holds of the caps.
    fn reserve_budget(
        &self,
        inner: &BreakerState,
        policy: &Policy,
        arrival: &Arrival<'_>,
    ) -> Result<QueueReservation, Rejection> {
        let budgets = [&self.namespace.budget, &self.context.budget];
        if matches!(arrival.target, Target::Mirror(_)) {
            return Ok(QueueReservation::none());
        }
        if arrival.readmitted {
            // It was admitted before: a queue that has filled up since does not cost it its position.
            return Ok(QueueReservation::past_cap(arrival.bytes, budgets));
        }
        let waiting = inner.waiting.requests - inner.waiting.mirrored;
        let measure = if waiting >= policy.queue_requests as usize {
            Measure::Requests
        } else if inner.waiting.bytes.saturating_add(arrival.bytes) > policy.queue_bytes {
            Measure::Bytes
        } else {
            let function = Caps { requests: waiting as u64, bytes: inner.waiting.bytes };
            return QueueReservation::try_new(arrival.bytes, function, budgets).map_err(Rejection::QueueFull);
        };
        Err(Rejection::QueueFull(CapReached { scope: Scope::Function, measure }))
    }
}
