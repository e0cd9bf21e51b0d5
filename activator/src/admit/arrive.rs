//! What becomes of a request that comes: it goes, it waits, or it is turned away.

use std::{sync::Arc, time::Duration};

use tokio::{sync::oneshot, time::Instant};

use super::{
    budget::{Caps, Held},
    policy::Policy,
    refusal::{Full, Measure, Refusal, Scope},
    state::{Effects, Entered, Gate, Inner, Lease, Ticket, Waiter},
    target::Target,
};

/// A request that comes.
struct Arrival<'a> {
    target: &'a Target,
    /// What it would hold while it waits.
    bytes: u64,
    /// Its place in the order, and since when it has it.
    sequence: u64,
    since: Instant,
    /// It was let in before and could not be sent to its pod.
    back: bool,
}

impl Gate {
    /// A request comes that is for `target` and would hold `bytes` while it waits, which is asked only if it has to.
    ///
    /// # Errors
    ///
    /// If it is turned away.
    pub fn enter(self: &Arc<Self>, target: &Target, bytes: impl FnOnce() -> u64) -> Result<Entered, Refusal> {
        self.arrive(target, bytes, None)
    }

    /// A request comes back that could not be sent to its pod. It keeps its place in the order, so it goes next.
    ///
    /// # Errors
    ///
    /// If it is turned away.
    pub fn enter_again(
        self: &Arc<Self>,
        target: &Target,
        bytes: impl FnOnce() -> u64,
        sequence: u64,
        arrived: Instant,
    ) -> Result<Entered, Refusal> {
        self.arrive(target, bytes, Some((sequence, arrived)))
    }

    fn arrive(
        self: &Arc<Self>,
        target: &Target,
        bytes: impl FnOnce() -> u64,
        back: Option<(u64, Instant)>,
    ) -> Result<Entered, Refusal> {
        let entered = self.with(|inner, effects| {
            // Read under the lock: once a lower limit was set, nobody is let in by the former.
            let policy = self.policy.load();
            if inner.closed {
                return Err(Refusal::Deleted);
            }
            let now = Instant::now();
            let chosen = match target {
                Target::Shares { affinity } => inner.choose(affinity),
                Target::Revision(name) | Target::Copy(name) => self.index_of(inner, name),
            };
            let (sequence, since) = back.unwrap_or_else(|| {
                inner.sequence += 1;
                (inner.sequence, now)
            });
            let Some(revision) = inner.revisions.get_mut(chosen) else { return Err(Refusal::Deleted) };
            if revision.queue.is_empty()
                && let Some(index) = revision.pick(policy.limit, false)
                && let Some(endpoint) = revision.slots[index].endpoint.clone()
            {
                endpoint.enter();
                revision.account.enter();
                let account = revision.account.clone();
                let arrived = since;
                let lease = Lease {
                    gate: self.clone(),
                    account,
                    endpoint,
                    sequence,
                    arrived,
                    cold: None,
                    answered: false,
                    given: None,
                };
                return Ok(Entered::Now(lease));
            }
            let arrival = Arrival { target, bytes: bytes(), sequence, since, back: back.is_some() };
            let line = self.wait_in_line(inner, effects, chosen, &policy, now, &arrival);
            if let Err(Refusal::Failing { .. }) = line {
                // Its pods could not serve it.
                inner.revisions[chosen].account.ended(true, None);
            }
            line.map(Entered::Later)
        });
        if let Err(refusal) = &entered
            && !matches!(target, Target::Copy(_))
        {
            self.metrics().turned_away(refusal.reason());
        }
        entered
    }

    fn wait_in_line(
        self: &Arc<Self>,
        inner: &mut Inner,
        effects: &mut Effects,
        chosen: usize,
        policy: &Policy,
        now: Instant,
        arrival: &Arrival<'_>,
    ) -> Result<Ticket, Refusal> {
        let revision = &mut inner.revisions[chosen];
        if let Some(refusal) = revision.judge(now) {
            let name = revision.name.clone();
            inner.refuse(&name, &refusal, effects);
            return Err(refusal);
        }
        let asleep = revision.live().next().is_none();
        let failing = match (revision.failing, asleep) {
            (true, _) => revision.health.refusal(now),
            (false, true) => revision.health.holds_back(now),
            (false, false) => None,
        };
        if let Some(refusal) = failing {
            return Err(refusal);
        }
        if asleep && !arrival.back {
            let copy = matches!(arrival.target, Target::Copy(_));
            self.permit(inner, chosen, now, if copy { Duration::ZERO } else { policy.cold_start })?;
        }
        let held = self.hold(inner, policy, arrival)?;
        let Arrival { target, sequence, since, .. } = *arrival;
        let (sender, answer) = oneshot::channel();
        let revision = &mut inner.revisions[chosen];
        inner.waiting.add(&held);
        revision.queue.insert(sequence, Waiter { answer: sender, arrived: since, held, bound: target.bound() });
        revision.account.queue();
        // A pod may have room for those that wait and not for one that comes anew, or the other way round.
        inner.pump(self, chosen, policy.limit, effects);
        effects.keeper = !std::mem::replace(&mut inner.keeper, true);
        effects.kick = inner.revisions.get(chosen).is_some_and(|r| r.queue.len() == 1);
        Ok(Ticket { gate: self.clone(), sequence, answer, over: false })
    }

    /// Takes what a request that waits is to hold of the caps.
    fn hold(&self, inner: &Inner, policy: &Policy, arrival: &Arrival<'_>) -> Result<Held, Refusal> {
        let budgets = [&self.namespace.budget, &self.context.budget];
        if matches!(arrival.target, Target::Copy(_)) {
            return Ok(Held::nothing());
        }
        if arrival.back {
            // It was let in before; a queue that has filled meanwhile does not cost it its place.
            return Ok(Held::over(arrival.bytes, budgets));
        }
        let waiting = inner.waiting.requests - inner.waiting.copies;
        let measure = if waiting >= policy.queue_requests as usize {
            Measure::Requests
        } else if inner.waiting.bytes.saturating_add(arrival.bytes) > policy.queue_bytes {
            Measure::Bytes
        } else {
            let function = Caps { requests: waiting as u64, bytes: inner.waiting.bytes };
            return Held::take(arrival.bytes, function, budgets).map_err(Refusal::QueueFull);
        };
        Err(Refusal::QueueFull(Full { scope: Scope::Function, measure }))
    }

    /// From when on a revision may be woken.
    ///
    /// A token of the function and one of its namespace are taken for each wake that succeeds, and not for each try: the
    /// permit stands until then. It may be for later, and whoever asks then stands behind, so functions of one namespace
    /// get their turns in the order in which they were called.
    ///
    /// # Errors
    ///
    /// If it could not be woken `within` that time, and nothing was taken.
    pub(super) fn permit(
        &self,
        inner: &mut Inner,
        index: usize,
        now: Instant,
        within: Duration,
    ) -> Result<Instant, Refusal> {
        let revision = &mut inner.revisions[index];
        if revision.name.is_empty() {
            // There is nothing to wake yet.
            return Ok(now);
        }
        if let Some(permit) = revision.wake.permit {
            return Ok(permit);
        }
        let mut shared = self.namespace.wakes.lock();
        let turns = [(Scope::Function, inner.wakes.next(now)), (Scope::Namespace, shared.next(now))];
        let (scope, turn) = if turns[1].1 > turns[0].1 { turns[1] } else { turns[0] };
        let wait = turn.duration_since(now);
        if wait > within {
            return Err(Refusal::Throttled { scope, retry_after: wait });
        }
        if turn > now {
            self.context.metrics.throttled(scope.word());
        }
        inner.wakes.take(now);
        shared.take(now);
        revision.wake.permit = Some(turn);
        Ok(turn)
    }
}
