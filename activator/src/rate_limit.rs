//! Rate limiting: a token bucket (GCRA) whose tokens can be reserved ahead of time.
//!
//! Its whole state is the time at which the bucket will be full again. Time is an argument, and a caller can look at
//! the wait before it takes a token: two buckets are taken from together or not at all, and a token can be for a later
//! time. `governor` offers neither.

use std::time::Duration;

use tokio::time::Instant;

/// A rate: a burst, and one more after each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Maximum number at once after a pause. At least one.
    pub burst: u32,
    /// Time after which one more is allowed.
    pub interval: Duration,
}

/// A token bucket.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    rate: Rate,
    /// When the bucket will be full again; in the past or `None` if it is full. Callers reject what would come too
    /// late, so it is never further away than the longest wait plus the whole bucket.
    full_at: Option<Instant>,
}

impl RateLimiter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, full_at: None }
    }

    /// Creates a bucket with a single token, so that a process does not start with a burst.
    pub(crate) fn with_one_token(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: Some(now + rate.interval * rate.burst.saturating_sub(1)) }
    }

    /// Returns when the next token is available: now or later.
    pub(crate) fn next(&self, now: Instant) -> Instant {
        let rest = self.rate.interval.saturating_mul(self.rate.burst.saturating_sub(1));
        // A time before the clock's epoch is in the past too.
        self.full_at.and_then(|full_at| full_at.checked_sub(rest)).map_or(now, |next| next.max(now))
    }

    /// Whether the bucket is full: nobody has taken from it for long enough.
    pub(crate) fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|full_at| full_at <= now)
    }

    /// Takes the next token, and returns when it is available: now or later.
    pub(crate) fn reserve(&mut self, now: Instant) -> Instant {
        let at = self.next(now);
        self.take(now);
        at
    }

    /// Takes the next token even if it is available later only; the next caller waits longer.
    pub(crate) fn take(&mut self, now: Instant) {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        self.full_at = Some(full_at + self.rate.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { burst: 3, interval: Duration::from_secs(6) };

    fn taken(limiter: &mut RateLimiter, now: Instant) -> Duration {
        limiter.reserve(now) - now
    }

    #[test]
    fn a_burst_is_followed_by_one_token_per_interval() {
        let (mut limiter, now) = (RateLimiter::new(RATE), Instant::now());
        let waits: Vec<_> = (0..6).map(|_| taken(&mut limiter, now).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 6, 12, 18]);
        // After the last one and a little longer there is exactly one more.
        let later = now + Duration::from_secs(24);
        assert_eq!([taken(&mut limiter, later).as_secs(), taken(&mut limiter, later).as_secs()], [0, 6]);
    }

    #[test]
    fn a_bucket_with_one_token_refills_like_any_other() {
        let now = Instant::now();
        let mut limiter = RateLimiter::with_one_token(RATE, now);
        let waits: Vec<_> = (0..3).map(|_| taken(&mut limiter, now).as_secs()).collect();
        assert_eq!(waits, [0, 6, 12]);
        let later = now + Duration::from_secs(60);
        let waits: Vec<_> = (0..4).map(|_| taken(&mut limiter, later).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 6]);
    }

    #[test]
    fn a_bucket_refills_up_to_the_burst() {
        let (mut limiter, now) = (RateLimiter::new(RATE), Instant::now());
        limiter.take(now);
        let later = now + Duration::from_secs(86_400);
        let waits: Vec<_> = (0..4).map(|_| taken(&mut limiter, later).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 6]);
    }

    proptest! {
        /// No time span has more tokens than the burst and one per interval.
        #[test]
        fn never_more_than_the_rate(burst in 1..6_u32, steps in prop::collection::vec(0..5000_u64, 1..80)) {
            let rate = Rate { burst, interval: Duration::from_millis(1000) };
            let (mut limiter, mut now) = (RateLimiter::new(rate), Instant::now());
            let mut turns = vec![];
            for step in steps {
                now += Duration::from_millis(step);
                turns.push(limiter.next(now));
                limiter.take(now);
            }
            for (first, from) in turns.iter().enumerate() {
                for (last, to) in turns.iter().enumerate().skip(first) {
                    let allowed = u128::from(burst) + (*to - *from).as_millis() / 1000;
                    prop_assert!((last - first + 1) as u128 <= allowed, "{first} to {last} in {:?}", *to - *from);
                }
            }
        }
    }
}
