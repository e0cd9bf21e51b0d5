//! The breaker with many threads.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_limit_holds_across_threads() {
    let breaker = breaker(Some(2), 10_000);
    serve(&breaker, 1);
    serve(&breaker, 2);
    let inside: Arc<[AtomicU32; 3]> = Arc::default();
    let callers: Vec<_> = (0..2000)
        .map(|number| {
            let (breaker, inside) = (breaker.clone(), inside.clone());
            tokio::spawn(async move {
                let permit = match breaker.admit(&Target::ANY, || 1).unwrap() {
                    Admission::Granted(permit) => permit,
                    Admission::Queued(ticket) if number % 7 == 0 => {
                        tokio::task::yield_now().await;
                        drop(ticket);
                        return;
                    }
                    Admission::Queued(mut ticket) => ticket.wait().await.unwrap(),
                };
                let now = &inside[usize::from(permit.endpoint().address.port())];
                assert!(now.fetch_add(1, Ordering::SeqCst) < 2);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                drop(permit);
            })
        })
        .collect();
    for caller in callers {
        tokio::time::timeout(Duration::from_secs(30), caller).await.expect("a wake-up was lost").unwrap();
    }
    assert_eq!((breaker.queued(), breaker.context().budget.used()), (0, NOTHING));
}
