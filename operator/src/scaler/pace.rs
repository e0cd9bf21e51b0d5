//! How fast the scaler writes, over all Functions.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// One write in so long: a hundred a second. The API server gives all controllers together some hundreds of writes a second
/// on etcd, and a wake by an activator has to find room beside ours.
const INTERVAL: Duration = Duration::from_millis(10);

/// So many at once after a pause: a schedule that begins for two hundred functions is not held up.
const BURST: u32 = 200;

/// Turns are taken in the order in which they are asked for. A Function has one write under way, so that is a queue of
/// Functions, and one with many revisions does not come twice before another.
#[derive(Debug, Default)]
pub struct Pace {
    /// When the bucket is full again. `None`: it is full and nobody has written yet.
    full: Mutex<Option<Instant>>,
}

impl Pace {
    /// Waits for a turn.
    ///
    /// Cancelling it gives the turn away unused.
    pub async fn turn(&self) {
        let at = self.take(Instant::now());
        sleep_until(at).await;
    }

    /// Lets nobody write for so long: the API server has said that it is too much.
    pub fn hold(&self, wait: Duration) {
        let until = Instant::now() + wait + INTERVAL * (BURST - 1);
        let mut full = self.full.lock();
        *full = Some(full.map_or(until, |full| full.max(until)));
    }

    fn take(&self, now: Instant) -> Instant {
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
    async fn a_burst_and_then_a_rate() {
        let (pace, begun) = (Pace::default(), Instant::now());
        for _ in 0..BURST {
            pace.turn().await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            pace.turn().await;
        }
        let second = begun.elapsed();
        assert!((Duration::from_millis(990)..=Duration::from_millis(1110)).contains(&second), "{second:?}");
        tokio::time::advance(Duration::from_secs(3600)).await;
        let later = Instant::now();
        for _ in 0..BURST {
            pace.turn().await;
        }
        assert_eq!(later.elapsed(), Duration::ZERO, "the bucket is full again, and no fuller");
        pace.turn().await;
        assert!(later.elapsed() > Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_first_goes_first() {
        let (pace, order) = (Arc::new(Pace::default()), Arc::new(Mutex::new(vec![])));
        for _ in 0..BURST {
            pace.turn().await;
        }
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..50 {
            let (pace, order) = (Arc::clone(&pace), Arc::clone(&order));
            tasks.spawn(async move {
                pace.turn().await;
                order.lock().push(number);
            });
        }
        tasks.join_all().await;
        assert_eq!(*order.lock(), (0..50).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn all_wait_when_the_server_says_so() {
        let (pace, begun) = (Pace::default(), Instant::now());
        pace.hold(Duration::from_secs(5));
        pace.turn().await;
        let waited = begun.elapsed();
        assert!((Duration::from_secs(5)..Duration::from_millis(5020)).contains(&waited), "{waited:?}");
        pace.turn().await;
        assert!(begun.elapsed() > waited, "and then one after the other");
    }
}
