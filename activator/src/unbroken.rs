//! Work that a defect does not end.
//!
//! A panic unwinds to the task in which it happened. Where that task is the only one that does its work, such as the keeper of
//! a function, the work is begun anew after a pause; where it deals with one event after the other, the next one is dealt with.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;

use crate::{metrics::Metrics, wake::jitter};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Does `work` in a task of its own until it ends by itself. After a panic it is begun anew with a growing pause.
pub(crate) fn spawn<W>(task: &'static str, metrics: Arc<Metrics>, work: impl Fn() -> W + Send + Sync + 'static)
where
    W: Future<Output = ()> + Send,
{
    tokio::spawn(async move {
        let mut tries = 0;
        // What the work shares is behind locks that are free again after a panic, and is never left half changed across
        // an await.
        while let Err(panic) = AssertUnwindSafe(async { work().await }).catch_unwind().await {
            report(task, &metrics, panic.as_ref());
            tokio::time::sleep(jitter(FIRST, tries, LONGEST)).await;
            tries += 1;
        }
    });
}

/// Does `work`, and tells whether it came to its end.
pub(crate) fn attempt(task: &'static str, metrics: &Metrics, work: impl FnOnce()) -> bool {
    let done = std::panic::catch_unwind(AssertUnwindSafe(work));
    done.map_err(|panic| report(task, metrics, panic.as_ref())).is_ok()
}

fn report(task: &'static str, metrics: &Metrics, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    metrics.panicked(task);
    tracing::error!(task, panic = text, "A defect ended a piece of work; it is a bug worth a report");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Ledger;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn it_is_begun_anew_until_it_ends() {
        let metrics = Metrics::new(Ledger::new());
        let (done, mut is_done) = mpsc::unbounded_channel();
        let tries = Arc::new(AtomicU32::new(0));
        spawn("test", metrics.clone(), move || {
            let (done, tries) = (done.clone(), tries.clone());
            // Once before it is a future at all, once as one.
            assert!(tries.fetch_add(1, Ordering::SeqCst) != 0, "first");
            async move {
                assert!(tries.load(Ordering::SeqCst) > 2, "second");
                done.send(tries.load(Ordering::SeqCst)).unwrap();
            }
        });
        assert_eq!(is_done.recv().await, Some(3));
        assert_eq!(is_done.recv().await, None, "it has ended");
        assert!(metrics.encode().unwrap().contains(r#"rouse_activator_panics_total{task="test"} 2"#));
    }

    #[test]
    fn a_defect_in_one_piece_is_told() {
        let metrics = Metrics::new(Ledger::new());
        assert!(attempt("test", &metrics, || ()));
        assert!(!attempt("test", &metrics, || panic!("a defect")));
    }
}
