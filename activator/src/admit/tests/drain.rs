//! Reports of draining pods.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rouse_crds::demand::{FRAME_INTERVAL, Frame, PodDemand};

use super::*;
use crate::demand::{Frames, Publisher};

fn pods(breaker: &Breaker) -> Vec<PodDemand> {
    breaker.context().ledger.read(None).revisions.into_iter().flat_map(|revision| revision.pods).collect()
}

fn going(number: u16) -> PodFacts {
    PodFacts { ready: true, draining: true, ..facts(number) }
}

async fn next(frames: &mut Frames) -> Frame {
    serde_json::from_slice(&frames.next().await.unwrap().concat()).unwrap()
}

fn reader(breaker: &Breaker) -> Frames {
    let publisher = Publisher::new(breaker.context().ledger.clone(), "p/1".into());
    let running = publisher.clone();
    tokio::spawn(async move { running.run().await });
    Frames::new(publisher)
}

/// Reads until something is reported, within the time of a frame.
async fn soon(frames: &mut Frames) -> Vec<PodDemand> {
    let began = Instant::now();
    let mut revisions = vec![];
    while revisions.is_empty() {
        revisions = next(frames).await.revisions;
    }
    assert!(began.elapsed() <= FRAME_INTERVAL + Duration::from_millis(5), "{:?}", began.elapsed());
    revisions.remove(0).pods
}

#[tokio::test(start_paused = true)]
async fn a_draining_pod_is_reported_without_requests() {
    let breaker = breaker(None, 10);
    breaker.pod_updated(&PodFacts { ready: true, ..facts(1) });
    let mut frames = reader(&breaker);
    assert!(next(&mut frames).await.revisions.is_empty(), "never requested, never reported");
    tokio::time::advance(Duration::from_millis(700)).await;
    breaker.pod_updated(&going(1));
    let one = |in_flight, draining| [PodDemand { pod: "1".into(), in_flight, draining }];
    assert_eq!(soon(&mut frames).await, one(0, true));
    breaker.pod_updated(&PodFacts { ready: true, ..facts(1) });
    assert_eq!(soon(&mut frames).await, [], "spared");
    let Ok(Admission::Granted(permit)) = breaker.admit(&Target::ANY, || 1) else { panic!("it serves") };
    assert_eq!(soon(&mut frames).await, one(1, false));
    breaker.pod_updated(&going(1));
    assert_eq!(soon(&mut frames).await, one(1, true));
    drop(permit);
    assert_eq!(soon(&mut frames).await, one(0, true), "it is empty");
    breaker.pod_deleted(REVISION, "1");
    assert_eq!(soon(&mut frames).await, []);
}

#[tokio::test(start_paused = true)]
async fn the_first_request_of_an_idle_revision_is_urgent_regardless_of_pod_changes() {
    let breaker = breaker(None, 10);
    let urgent = breaker.context().ledger.urgent();
    breaker.pod_updated(&PodFacts { ready: true, ..facts(1) });
    breaker.pod_updated(&going(2));
    assert_eq!(*urgent.borrow(), 0, "it is part of the next frame");
    drop(breaker.admit(&Target::ANY, || 1).unwrap());
    assert_eq!(*urgent.borrow(), 1);
}

/// The operator deletes a pod once it reads this, so it has to hold in any order of threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pod_reported_empty_and_draining_gets_no_request() {
    let breaker = breaker(Some(4), 10_000);
    breaker.pod_updated(&PodFacts { ready: true, ..facts(1) });
    breaker.pod_updated(&PodFacts { ready: true, ..facts(2) });
    // Odd from the report until the pod is no longer being removed.
    let (told, over) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..3)
        .map(|_| {
            let (breaker, told, over) = (breaker.clone(), told.clone(), over.clone());
            tokio::task::spawn_blocking(move || {
                let mut of_first = 0;
                while !over.load(Ordering::SeqCst) {
                    let before = told.load(Ordering::SeqCst);
                    let Ok(Admission::Granted(permit)) = breaker.admit(&Target::ANY, || 1) else { continue };
                    let first = permit.endpoint().address.port() == 1;
                    let told_all_along = before % 2 == 1 && told.load(Ordering::SeqCst) == before;
                    assert!(!(first && told_all_along), "a pod that was reported empty got a request");
                    of_first += u32::from(first);
                }
                of_first
            })
        })
        .collect();
    for _ in 0..50 {
        breaker.pod_updated(&going(1));
        while !pods(&breaker).contains(&PodDemand { pod: "1".into(), in_flight: 0, draining: true }) {
            std::thread::yield_now();
        }
        told.fetch_add(1, Ordering::SeqCst);
        for _ in 0..50 {
            std::thread::yield_now();
        }
        assert_eq!(endpoint(&breaker, 1).unwrap().in_flight(), 0);
        told.fetch_add(1, Ordering::SeqCst);
        breaker.pod_updated(&PodFacts { ready: true, ..facts(1) });
        // It has to get some requests before it drains again, or the test shows nothing.
        let first = endpoint(&breaker, 1).unwrap();
        while first.in_flight() == 0 && !callers.iter().any(tokio::task::JoinHandle::is_finished) {
            std::thread::yield_now();
        }
    }
    over.store(true, Ordering::SeqCst);
    let mut of_first = 0;
    for caller in callers {
        of_first += caller.await.unwrap();
    }
    assert!(of_first > 0);
}
