//! Rate limits of wakes: which tokens a wake takes, and when it may take them.
//!
//! A wake takes a token of its function, then one of its namespace, then one of the process. Each is taken when the one
//! before it is due and not earlier: a wake that is delayed by one limit takes nothing away from others by the next.
//!
//! Clients need no credentials, so nobody knows which of them deserve a wake. But those who wake functions again and again
//! must not leave the others without. So functions that were woken a short time ago get at most half of each shared
//! rate: the other half is for those that were not. It does not help against a client that wakes more functions for the
//! first time than the rate allows.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    rejection::{Rejection, Scope},
    state::{Breaker, BreakerState},
    wake_tokens::{Bucket, Share, Tokens},
};
use crate::rate_limit::RateLimiter;

/// How long after a wake a function is one of those that share half of a rate. Long enough to tell a function that is
/// called now and then from one that is kept awake by one request per idle timeout.
const RECENT: Duration = Duration::from_secs(600);

impl Breaker {
    /// Returns the time from which a revision may be woken, as far as it is known: at that time, call it again.
    ///
    /// Each wake that succeeds takes one token of each bucket; retries of a failed patch take none, the tokens are kept
    /// until then. A token may be for a later time. Each bucket serves in order, so the functions of a namespace are
    /// woken in the order in which they were requested.
    ///
    /// # Errors
    ///
    /// If that time is more than `within` away; no token is taken then.
    pub(super) fn reserve_wake(
        &self,
        inner: &mut BreakerState,
        index: usize,
        now: Instant,
        within: Duration,
    ) -> Result<Instant, Rejection> {
        let revision = &inner.revisions[index];
        if revision.name.is_empty() {
            // There is no revision yet that could be woken.
            return Ok(now);
        }
        let mut tokens = revision.wake.tokens;
        if tokens.taken == 0 {
            let turns =
                Bucket::ALL.map(|bucket| (bucket.scope(), self.with_limiter(inner, bucket, now, |l| l.next(now))));
            // Of equal ones the first: it is the one that the function's own clients can do something about.
            let (scope, turn) = turns.into_iter().rev().max_by_key(|(_, turn)| *turn).unwrap_or((Scope::Function, now));
            let wait = turn.duration_since(now);
            if wait > within {
                return Err(Rejection::Throttled { scope, retry_after: wait });
            }
        }
        while let Some(bucket) = Bucket::ALL.get(tokens.taken)
            && tokens.due.is_none_or(|due| due <= now)
        {
            let turn = self.with_limiter(inner, *bucket, now, |limiter| limiter.reserve(now));
            if turn > now {
                self.context.metrics.record_delayed_wake(bucket.scope().label());
            }
            tokens = Tokens { taken: tokens.taken + 1, due: Some(turn) };
        }
        inner.revisions[index].wake.tokens = tokens;
        Ok(tokens.due.unwrap_or(now))
    }

    /// Looks at a bucket, or takes a token from it. From a bucket that does not concern the function, a token is due now.
    fn with_limiter(
        &self,
        inner: &mut BreakerState,
        bucket: Bucket,
        now: Instant,
        act: impl FnOnce(&mut RateLimiter) -> Instant,
    ) -> Instant {
        let concerned = |share| matches!(share, Share::All) || inner.was_woken_recently(now);
        match bucket {
            Bucket::Function => act(&mut inner.wakes),
            Bucket::Namespace(share) if concerned(share) => act(self.namespace.wakes.lock().limiter(share)),
            Bucket::Process(share) if concerned(share) => act(self.context.wakes.lock().limiter(share)),
            Bucket::Namespace(_) | Bucket::Process(_) => now,
        }
    }
}

impl BreakerState {
    fn was_woken_recently(&self, now: Instant) -> bool {
        self.last_wake.is_some_and(|last| now.saturating_duration_since(last) < RECENT)
    }
}
