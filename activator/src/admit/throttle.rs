//! How often something may be done: a token bucket that knows when its next token will be there.
//!
//! The bucket is one moment: the one at which it will be full again. Time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// How often: so many at once, and one more after each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many at once, when nothing was done for long. At least one.
    pub burst: u32,
    /// The time after which there may be one more.
    pub interval: Duration,
}

/// A token bucket. At first it is full.
#[derive(Debug)]
pub(super) struct Throttle {
    rate: Rate,
    /// When it will be full again; in the past or nothing if it is. Takers are turned away whose turn would come too late,
    /// so it is never further away than the longest wait and the whole bucket.
    full_at: Option<Instant>,
}

impl Throttle {
    pub(super) fn new(rate: Rate) -> Self {
        Self { rate, full_at: None }
    }

    /// When the next token is there: now or later.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let rest = self.rate.interval.saturating_mul(self.rate.burst.saturating_sub(1));
        // Before the beginning of all time is before now too.
        self.full_at.and_then(|full_at| full_at.checked_sub(rest)).map_or(now, |next| next.max(now))
    }

    /// Takes the next token, though it may be there later only: whoever asks then stands behind.
    pub(super) fn take(&mut self, now: Instant) {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        self.full_at = Some(full_at + self.rate.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { burst: 3, interval: Duration::from_secs(6) };

    fn taken(throttle: &mut Throttle, now: Instant) -> Duration {
        let next = throttle.next(now);
        throttle.take(now);
        next - now
    }

    #[test]
    fn so_many_at_once_and_then_one_after_the_other() {
        let (mut throttle, now) = (Throttle::new(RATE), Instant::now());
        let waits: Vec<_> = (0..6).map(|_| taken(&mut throttle, now).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 6, 12, 18]);
        // After the last of them has had its turn and a little longer, there is one and no more.
        let later = now + Duration::from_secs(24);
        assert_eq!([taken(&mut throttle, later).as_secs(), taken(&mut throttle, later).as_secs()], [0, 6]);
    }

    #[test]
    fn it_fills_up_to_the_burst_and_no_further() {
        let (mut throttle, now) = (Throttle::new(RATE), Instant::now());
        throttle.take(now);
        let later = now + Duration::from_secs(86_400);
        let waits: Vec<_> = (0..4).map(|_| taken(&mut throttle, later).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 6]);
    }

    proptest! {
        /// In no stretch of time are there more turns than the burst and one for each interval.
        #[test]
        fn never_more_than_the_rate(burst in 1..6_u32, steps in prop::collection::vec(0..5000_u64, 1..80)) {
            let rate = Rate { burst, interval: Duration::from_millis(1000) };
            let (mut throttle, mut now) = (Throttle::new(rate), Instant::now());
            let mut turns = vec![];
            for step in steps {
                now += Duration::from_millis(step);
                turns.push(throttle.next(now));
                throttle.take(now);
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
