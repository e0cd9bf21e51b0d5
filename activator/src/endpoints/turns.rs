//! Turns to probe: how many probes there may be at once and in a second, over all functions.
//!
//! A pod has one probe at a time, but there may be thousands of pods that start, or that never will. Those that have just
//! got their address have their turns apart from those that have been tried for long, since somebody waits for the former
//! and the latter may be any number. Within each, turns are taken in the order in which they were asked for, so that every
//! pod gets as many as every other.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until},
};

/// Turns to probe.
#[derive(Debug)]
pub(super) struct Turns {
    new: Share,
    old: Share,
}

#[derive(Debug)]
struct Share {
    at_once: Semaphore,
    /// Between two turns, in the long run.
    interval: Duration,
    /// When the next turn is.
    next: Mutex<Instant>,
}

/// Probes in a second of pods that are new, and of others. One costs some 50 µs of processor time here.
const NEW_A_SECOND: u32 = 2000;
const OLD_A_SECOND: u32 = 500;
/// Probes at once, for each of both. With time-outs of two seconds that is what is left of the rate if all of them run out.
const AT_ONCE: usize = 512;
/// Turns that may be taken together after a time without any.
const TOGETHER: u32 = 64;

impl Turns {
    pub(super) fn new() -> Self {
        Self { new: Share::new(NEW_A_SECOND), old: Share::new(OLD_A_SECOND) }
    }

    /// Waits for a turn, which is over when what is returned is dropped.
    ///
    /// Cancel-safe: a turn that was waited for is lost, which costs others its two milliseconds at most.
    pub(super) async fn take(&self, new: bool) -> Option<SemaphorePermit<'_>> {
        let share = if new { &self.new } else { &self.old };
        let at = share.reserve(Instant::now());
        if at > Instant::now() {
            sleep_until(at).await;
        }
        // It is never closed.
        share.at_once.acquire().await.ok()
    }
}

impl Share {
    fn new(a_second: u32) -> Self {
        let interval = Duration::from_secs(1) / a_second;
        Self { at_once: Semaphore::new(AT_ONCE), interval, next: Mutex::new(Instant::now()) }
    }

    /// The moment of the next free turn, which is taken by this.
    fn reserve(&self, now: Instant) -> Instant {
        let mut next = self.next.lock();
        let earliest = now.checked_sub(self.interval * TOGETHER).unwrap_or(now);
        let at = (*next).max(earliest);
        *next = at + self.interval;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::{task::JoinSet, time::timeout};

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_had_at_once_while_few_are_asked_for() {
        let turns = Turns::new();
        tokio::time::advance(Duration::from_secs(1)).await;
        let begun = Instant::now();
        for _ in 0..TOGETHER {
            assert!(turns.take(true).await.is_some());
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(10)).await;
            let before = Instant::now();
            assert!(turns.take(true).await.is_some());
            assert_eq!(before.elapsed(), Duration::ZERO, "the usual case");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_shared_evenly() {
        let turns = Arc::new(Turns::new());
        let mut pods = JoinSet::new();
        let until = Instant::now() + Duration::from_secs(10);
        for _ in 0..1000 {
            let turns = turns.clone();
            pods.spawn(async move {
                let mut probes = 0;
                while let Ok(Some(_)) = tokio::time::timeout_at(until, turns.take(true)).await {
                    probes += 1;
                }
                probes
            });
        }
        let probes = pods.join_all().await;
        let all: u32 = probes.iter().sum();
        assert!(all <= 10 * NEW_A_SECOND + TOGETHER, "{all}");
        assert!(all >= 10 * NEW_A_SECOND * 9 / 10, "{all}");
        let (least, most) = (probes.iter().min().unwrap(), probes.iter().max().unwrap());
        assert!(most - least <= 2, "{least} to {most}");
    }

    #[tokio::test(start_paused = true)]
    async fn functions_that_call_one_another_do_not_wait_for_one_anothers_probes() {
        let turns = Arc::new(Turns::new());
        let mut dead = JoinSet::new();
        for _ in 0..1000 {
            let turns = turns.clone();
            dead.spawn(async move { while turns.take(false).await.is_some() {} });
        }
        // What a pod waits for turns while it is tried ten times.
        let start = |turns: Arc<Turns>| async move {
            let mut waited = Duration::ZERO;
            for _ in 0..10 {
                let before = Instant::now();
                drop(turns.take(true).await);
                waited += before.elapsed();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            waited
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        // One behind the other, as in a chain, and all at once, as when a chain is called ahead.
        for _ in 0..5 {
            assert_eq!(start(turns.clone()).await, Duration::ZERO);
        }
        let mut together = JoinSet::new();
        for _ in 0..5 {
            together.spawn(start(turns.clone()));
        }
        for waited in together.join_all().await {
            assert_eq!(waited, Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pods_that_never_start_do_not_hold_up_a_new_one() {
        let turns = Arc::new(Turns::new());
        let mut dead = JoinSet::new();
        for _ in 0..5000 {
            let turns = turns.clone();
            dead.spawn(async move {
                loop {
                    let turn = turns.take(false).await;
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    drop(turn);
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        let before = Instant::now();
        assert!(timeout(Duration::from_millis(5), turns.take(true)).await.unwrap().is_some());
        assert!(before.elapsed() <= Duration::from_millis(1));
    }
}
