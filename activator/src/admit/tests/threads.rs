//! The gate among many threads.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_limit_holds_between_threads() {
    let gate = gate(Some(2), 10_000);
    serve(&gate, 1);
    serve(&gate, 2);
    let inside: Arc<[AtomicU32; 3]> = Arc::default();
    let callers: Vec<_> = (0..2000)
        .map(|number| {
            let (gate, inside) = (gate.clone(), inside.clone());
            tokio::spawn(async move {
                let lease = match gate.enter(&Target::ANY, || 1).unwrap() {
                    Entered::Now(lease) => lease,
                    Entered::Later(ticket) if number % 7 == 0 => {
                        tokio::task::yield_now().await;
                        drop(ticket);
                        return;
                    }
                    Entered::Later(mut ticket) => ticket.wait().await.unwrap(),
                };
                let now = &inside[usize::from(lease.endpoint().address.port())];
                assert!(now.fetch_add(1, Ordering::SeqCst) < 2);
                tokio::task::yield_now().await;
                now.fetch_sub(1, Ordering::SeqCst);
                drop(lease);
            })
        })
        .collect();
    for caller in callers {
        tokio::time::timeout(Duration::from_secs(30), caller).await.expect("a wake-up was lost").unwrap();
    }
    assert_eq!((gate.queued(), gate.context().budget.used()), (0, NOTHING));
}
