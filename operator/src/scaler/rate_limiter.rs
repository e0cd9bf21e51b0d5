//! Rate limit for all writes of the scaler.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// Time between two writes: 100 writes per second. The API server grants all controllers together some hundreds of etcd
/// writes per second, and the activators' wakes need capacity beside the scaler.
const INTERVAL: Duration = Duration::from_millis(10);

/// Writes that are allowed at once after a pause, so that a schedule that starts for 200 functions is not delayed.
const BURST: u32 = 200;

/// A token bucket that serves waiters in FIFO order. A Function has one write in flight, so the waiters are a queue of
/// Functions, and a Function with many revisions does not overtake others.
#[derive(Debug, Default)]
pub struct RateLimiter {
    /// Time at which the bucket is full again. `None`: the bucket is full and was never used.
    full: Mutex<Option<Instant>>,
}

impl RateLimiter {
    /// Waits for a token.
    ///
    /// Cancelling it discards the token.
    pub async fn acquire(&self) {
        let at = self.reserve(Instant::now());
        sleep_until(at).await;
    }

    /// Delays all further writes for `wait`, because the API server reported 429.
    pub fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait + INTERVAL * (BURST - 1);
        let mut full = self.full.lock();
        *full = Some(full.map_or(until, |full| full.max(until)));
    }

    fn reserve(&self, now: Instant) -> Instant {
        let mut full = self.full.lock();
        let before = full.map_or(now, |full| full.max(now));
        *full = Some(before + INTERVAL);
        before.checked_sub(INTERVAL * (BURST - 1)).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn allows_a_burst_and_then_the_rate() {
        let (limiter, start) = (RateLimiter::default(), Instant::now());
        for _ in 0..BURST {
            limiter.acquire().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            limiter.acquire().await;
        }
        let second = start.elapsed();
        assert!((Duration::from_millis(990)..=Duration::from_millis(1110)).contains(&second), "{second:?}");
        tokio::time::advance(Duration::from_secs(3600)).await;
        let later = Instant::now();
        for _ in 0..BURST {
            limiter.acquire().await;
        }
        assert_eq!(later.elapsed(), Duration::ZERO, "the bucket is full again and holds no more than the burst");
        limiter.acquire().await;
        assert!(later.elapsed() > Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_served_in_fifo_order() {
        let (limiter, order) = (Arc::new(RateLimiter::default()), Arc::new(Mutex::new(vec![])));
        for _ in 0..BURST {
            limiter.acquire().await;
        }
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..50 {
            let (limiter, order) = (Arc::clone(&limiter), Arc::clone(&order));
            tasks.spawn(async move {
                limiter.acquire().await;
                order.lock().push(number);
            });
        }
        tasks.join_all().await;
        assert_eq!(*order.lock(), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_delays_all_writes() {
        let (limiter, start) = (RateLimiter::default(), Instant::now());
        limiter.pause(Duration::from_secs(5));
        limiter.acquire().await;
        let waited = start.elapsed();
        assert!((Duration::from_secs(5)..Duration::from_millis(5020)).contains(&waited), "{waited:?}");
        limiter.acquire().await;
        assert!(start.elapsed() > waited, "without a burst after the pause");
    }
}
