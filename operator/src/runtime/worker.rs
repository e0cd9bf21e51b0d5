//! Worker pool: processes a [`WorkQueue`] with a bounded number of tasks.

use std::{fmt, hash::Hash, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{backoff, progress::Beat, queue::WorkQueue};

/// Interval of liveness reports while the queue is empty.
const TICK: Duration = Duration::from_secs(5);

/// Calls `handle` for each key of `queue`, with at most `concurrency` calls at a time and one for each key, until
/// `stop`. Then waits for the running calls. `handle` returns when to process the key again.
///
/// A panic in `handle` affects only that call: the key is retried later.
pub async fn run<K, F>(
    queue: &WorkQueue<K>,
    concurrency: usize,
    stop: &CancellationToken,
    beat: &Beat,
    handle: impl Fn(K) -> F,
) where
    K: Clone + Eq + Hash + Ord + fmt::Display + Send + Sync + 'static,
    F: Future<Output = Option<Instant>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    let finished = |ended: Result<(Arc<K>, Option<Instant>), tokio::task::JoinError>| match ended {
        Ok((key, again)) => queue.done(&key, again),
        // Panics are caught within the task and tasks are not aborted, so the runtime is shutting down.
        Err(error) => tracing::error!(%error, "Worker task was cancelled"),
    };
    loop {
        beat.now();
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = running.join_next() => finished(ended),
            key = queue.next(), if running.len() < concurrency => {
                let key = Arc::new(key);
                let work = AssertUnwindSafe(handle((*key).clone())).catch_unwind();
                running.spawn(async move {
                    let again = work.await.unwrap_or_else(|_| {
                        tracing::error!(%key, "Worker panicked; will retry. This is a bug, please report it");
                        Some(Instant::now() + backoff::RECONCILE.cap)
                    });
                    (key, again)
                });
            }
            _ = tick.tick() => {}
        }
    }
    while let Some(ended) = running.join_next().await {
        finished(ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn bounds_the_concurrency() {
        let queue = WorkQueue::default();
        for number in 0..50 {
            queue.add(number);
        }
        let (now, most, all) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stop = CancellationToken::new();
        let beat = Beat::default();
        let work = run(&queue, 4, &stop, &beat, |_| {
            let (now, most, all) = (now.clone(), most.clone(), all.clone());
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                all.fetch_add(1, Ordering::SeqCst);
                None
            }
        });
        let end = async {
            while all.load(Ordering::SeqCst) < 50 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stop.cancel();
        };
        tokio::join!(work, end);
        assert_eq!(most.load(Ordering::SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_affects_one_call() {
        let queue = WorkQueue::default();
        queue.add(1);
        queue.add(2);
        let calls = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let beat = Beat::default();
        let work = run(&queue, 1, &stop, &beat, |key| {
            let (calls, stop) = (calls.clone(), stop.clone());
            async move {
                let call = calls.fetch_add(1, Ordering::SeqCst);
                assert!(call != 0, "the first call panics");
                if key == 1 {
                    stop.cancel();
                }
                None
            }
        });
        work.await;
        assert_eq!(calls.load(Ordering::SeqCst), 3, "1 panicked, 2 ran, 1 ran again");
    }
}
