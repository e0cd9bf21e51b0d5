//! A panic in a task of a breaker does not stop the breaker.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Panics at the first wakes, every other time before it returns a future, and then succeeds.
#[derive(Debug)]
struct Broken {
    defects: AtomicU32,
    woken: tokio::sync::watch::Sender<u32>,
}

impl Scaler for Broken {
    fn wake<'a>(&'a self, _: &'a str, _: &'a str, _: u32) -> BoxFuture<'a, Result<(), WakeError>> {
        let left = self.defects.load(Ordering::SeqCst);
        self.defects.store(left.saturating_sub(1), Ordering::SeqCst);
        assert!(left == 0 || left.is_multiple_of(2), "a defect");
        Box::pin(async move {
            assert!(left == 0, "another defect");
            self.woken.send_modify(|n| *n += 1);
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_wake_task_is_restarted_after_a_panic() {
    let ledger = Ledger::new();
    let metrics = Metrics::new(ledger.clone());
    let (woken, mut is_woken) = tokio::sync::watch::channel(0);
    let scaler = Arc::new(Broken { defects: AtomicU32::new(4), woken });
    let context = Context::new(scaler, Bounds::generous(), Dialer::new(true), metrics, ledger);
    let namespace = Namespace::new(context.bounds.namespace, context.bounds.namespace_wakes);
    let breaker = breaker_in(&context, &namespace, policy(None, 10));
    let mut ticket = park(&breaker);
    is_woken.wait_for(|n| *n == 1).await.unwrap();
    assert!(context.metrics.encode().unwrap().contains(r#"rouse_activator_panics_total{task="wake"} 4"#));
    serve(&breaker, 1);
    drop(ticket.wait().await.unwrap());
    // The next wake from zero works as ever.
    breaker.pod_deleted(REVISION, "1");
    let mut ticket = park(&breaker);
    is_woken.wait_for(|n| *n >= 2).await.unwrap();
    serve(&breaker, 2);
    assert!(ticket.wait().await.is_ok());
}

#[tokio::test]
async fn a_panic_releases_the_permit() {
    let breaker = breaker(Some(1), 10);
    serve(&breaker, 1);
    let task = tokio::spawn({
        let breaker = breaker.clone();
        async move {
            let _permit = breaker.admit(&Target::ANY, || 1).unwrap();
            panic!("a defect");
        }
    });
    assert!(task.await.unwrap_err().is_panic());
    assert!(matches!(breaker.admit(&Target::ANY, || 1), Ok(Admission::Granted(_))));
}
