//! Global rate and concurrency limit for endpoint probes.
//!
//! A pod has at most one probe in flight, but thousands of pods may be starting, or may never start. Pods that got their
//! address a moment ago have a limit of their own: requests wait for those, while pods that have been probed for long may be
//! any number. Within each limit probes run in the order in which they were requested, so every pod gets an equal share.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until},
};

use crate::rate_limit::{Rate, RateLimiter};

/// Limits of probes, over all functions.
#[derive(Debug)]
pub(super) struct ProbeLimiter {
    new: Limit,
    old: Limit,
}

#[derive(Debug)]
struct Limit {
    concurrency: Semaphore,
    rate: Mutex<RateLimiter>,
}

/// Probes per second of new pods, and of others. One costs about 50 µs of processor time here.
const NEW_PER_SECOND: u32 = 2000;
const OLD_PER_SECOND: u32 = 500;
/// Concurrent probes of each kind. With timeouts of two seconds this is what remains of the rate if every probe times out.
const CONCURRENCY: usize = 512;
/// Probes that may start at once after a pause.
const BURST: u32 = 64;

impl ProbeLimiter {
    pub(super) fn new() -> Self {
        Self { new: Limit::new(NEW_PER_SECOND), old: Limit::new(OLD_PER_SECOND) }
    }

    /// Waits until a probe may start. The probe has ended when the permit is dropped.
    ///
    /// Cancel-safe: a reservation that is given up costs the others its two milliseconds at most.
    pub(super) async fn acquire(&self, new: bool) -> Option<SemaphorePermit<'_>> {
        let limit = if new { &self.new } else { &self.old };
        let at = limit.rate.lock().reserve(Instant::now());
        if at > Instant::now() {
            sleep_until(at).await;
        }
        // The semaphore is never closed.
        limit.concurrency.acquire().await.ok()
    }
}

impl Limit {
    fn new(per_second: u32) -> Self {
        let rate = Rate { burst: BURST, interval: Duration::from_secs(1) / per_second };
        Self {
            concurrency: Semaphore::new(CONCURRENCY),
            rate: Mutex::new(RateLimiter::with_one_token(rate, Instant::now())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::{task::JoinSet, time::timeout};

    #[tokio::test(start_paused = true)]
    async fn few_probes_start_at_once() {
        let limiter = ProbeLimiter::new();
        tokio::time::advance(Duration::from_secs(1)).await;
        let begun = Instant::now();
        for _ in 0..BURST {
            assert!(limiter.acquire(true).await.is_some());
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(10)).await;
            let before = Instant::now();
            assert!(limiter.acquire(true).await.is_some());
            assert_eq!(before.elapsed(), Duration::ZERO, "the usual case");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_every_pod_gets_an_equal_share() {
        let limiter = Arc::new(ProbeLimiter::new());
        let mut pods = JoinSet::new();
        let until = Instant::now() + Duration::from_secs(10);
        for _ in 0..1000 {
            let limiter = limiter.clone();
            pods.spawn(async move {
                let mut probes = 0;
                while let Ok(Some(_)) = tokio::time::timeout_at(until, limiter.acquire(true)).await {
                    probes += 1;
                }
                probes
            });
        }
        let probes = pods.join_all().await;
        let all: u32 = probes.iter().sum();
        assert!(all <= 10 * NEW_PER_SECOND + BURST, "{all}");
        assert!(all >= 10 * NEW_PER_SECOND * 9 / 10, "{all}");
        let (least, most) = (probes.iter().min().unwrap(), probes.iter().max().unwrap());
        assert!(most - least <= 2, "{least} to {most}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_chain_of_functions_does_not_wait_for_the_probes_of_its_members() {
        let limiter = Arc::new(ProbeLimiter::new());
        let mut dead = JoinSet::new();
        for _ in 0..1000 {
            let limiter = limiter.clone();
            dead.spawn(async move { while limiter.acquire(false).await.is_some() {} });
        }
        // How long a pod waits for the limiter during ten probes.
        let start = |limiter: Arc<ProbeLimiter>| async move {
            let mut waited = Duration::ZERO;
            for _ in 0..10 {
                let before = Instant::now();
                drop(limiter.acquire(true).await);
                waited += before.elapsed();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            waited
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        // One after the other, as in a chain of calls, and all at once, as when a chain is woken ahead.
        for _ in 0..5 {
            assert_eq!(start(limiter.clone()).await, Duration::ZERO);
        }
        let mut together = JoinSet::new();
        for _ in 0..5 {
            together.spawn(start(limiter.clone()));
        }
        for waited in together.join_all().await {
            assert_eq!(waited, Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pods_that_never_start_do_not_delay_a_new_one() {
        let limiter = Arc::new(ProbeLimiter::new());
        let mut dead = JoinSet::new();
        for _ in 0..5000 {
            let limiter = limiter.clone();
            dead.spawn(async move {
                loop {
                    let permit = limiter.acquire(false).await;
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    drop(permit);
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        let before = Instant::now();
        assert!(timeout(Duration::from_millis(5), limiter.acquire(true)).await.unwrap().is_some());
        assert!(before.elapsed() <= Duration::from_millis(1));
    }
}
