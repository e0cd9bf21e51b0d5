//! Panic isolation: restarts a task after it panicked, with backoff.
//!
//! A panic unwinds to the task in which it happened. A task that is the only one to do its work, such as the wake task of a
//! function, is restarted after a delay. A task that handles one event after the other goes on with the next event.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;

use crate::{backoff::jitter, metrics::Metrics};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Spawns a task that runs `work` until it returns. After a panic it is restarted, with a growing delay.
pub(crate) fn spawn<W>(task: &'static str, metrics: Arc<Metrics>, work: impl Fn() -> W + Send + Sync + 'static)
where
    W: Future<Output = ()> + Send,
{
    tokio::spawn(async move {
        let mut tries = 0;
        // State shared with the work is behind locks that a panic releases, and is never left half changed across an await.
        while let Err(panic) = AssertUnwindSafe(async { work().await }).catch_unwind().await {
            report(task, &metrics, panic.as_ref());
            tokio::time::sleep(jitter(FIRST, tries, LONGEST)).await;
            tries += 1;
        }
    });
}

/// Runs `work`, and returns whether it ended without a panic.
pub(crate) fn catch_panic(task: &'static str, metrics: &Metrics, work: impl FnOnce()) -> bool {
    let done = std::panic::catch_unwind(AssertUnwindSafe(work));
    done.map_err(|panic| report(task, metrics, panic.as_ref())).is_ok()
}

fn report(task: &'static str, metrics: &Metrics, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    metrics.record_panic(task);
    tracing::error!(task, panic = text, "Task panicked; this is a bug, please report it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Ledger;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn a_task_is_restarted_until_it_returns() {
        let metrics = Metrics::new(Ledger::new());
        let (done, mut is_done) = mpsc::unbounded_channel();
        let tries = Arc::new(AtomicU32::new(0));
        spawn("test", metrics.clone(), move || {
            let (done, tries) = (done.clone(), tries.clone());
            // Panics once before there is a future, and once in it.
            assert!(tries.fetch_add(1, Ordering::SeqCst) != 0, "first");
            async move {
                assert!(tries.load(Ordering::SeqCst) > 2, "second");
                done.send(tries.load(Ordering::SeqCst)).unwrap();
            }
        });
        assert_eq!(is_done.recv().await, Some(3));
        assert_eq!(is_done.recv().await, None, "the task has returned");
        assert!(metrics.encode().unwrap().contains(r#"rouse_activator_panics_total{task="test"} 2"#));
    }

    #[test]
    fn a_panic_in_one_event_is_reported() {
        let metrics = Metrics::new(Ledger::new());
        assert!(catch_panic("test", &metrics, || ()));
        assert!(!catch_panic("test", &metrics, || panic!("a bug")));
    }
}
