//! Choice of a pod.

use super::*;

/// A breaker with serving pods `1..=pods`.
fn serving(limit: Option<u32>, pods: u16) -> Arc<Breaker> {
    let breaker = breaker(limit, 1000);
    (1..=pods).for_each(|pod| serve(&breaker, pod));
    breaker
}

fn enter(breaker: &Arc<Breaker>, count: usize) -> Vec<Permit> {
    let enter = |_| match breaker.admit(&Target::ANY, || 1) {
        Ok(Admission::Granted(permit)) => permit,
        other => panic!("{other:?}"),
    };
    (0..count).map(enter).collect()
}

fn load(breaker: &Breaker, pod: u16) -> u32 {
    endpoint(breaker, pod).unwrap().in_flight()
}

#[tokio::test]
async fn small_limits_fill_one_pod_after_the_other() {
    let breaker = serving(Some(2), 4);
    let mut inside = enter(&breaker, 5);
    assert_eq!([1, 2, 3, 4].map(|pod| load(&breaker, pod)), [2, 2, 1, 0]);
    inside.remove(0);
    inside.append(&mut enter(&breaker, 1));
    assert_eq!([1, 2, 3, 4].map(|pod| load(&breaker, pod)), [2, 2, 1, 0], "the first with room");
}

#[tokio::test]
async fn the_less_loaded_of_two_pods_is_picked_every_time() {
    // Two picks that could be the same pod would send every fourth request to the busier one.
    for limit in [None, Some(1000)] {
        let breaker = serving(limit, 2);
        let mut inside = vec![];
        for _ in 0..200 {
            inside.append(&mut enter(&breaker, 1));
            assert!(load(&breaker, 1).abs_diff(load(&breaker, 2)) <= 1, "{limit:?}");
        }
    }
}

#[tokio::test]
async fn many_pods_are_loaded_evenly() {
    let breaker = serving(None, 50);
    let _inside = enter(&breaker, 5000);
    let loads: Vec<_> = (1..=50).map(|pod| load(&breaker, pod)).collect();
    assert!(loads.iter().all(|load| (80..=120).contains(load)), "{loads:?}");
}

#[tokio::test]
async fn a_full_pod_is_not_picked() {
    // All but one are full: whichever two are looked at, the one with capacity is picked.
    let breaker = serving(Some(20), 30);
    let inside = enter(&breaker, 599);
    assert_eq!(inside.len(), 599);
    let _last = enter(&breaker, 1);
    assert!((1..=30).all(|pod| load(&breaker, pod) == 20));
    assert!(matches!(breaker.admit(&Target::ANY, || 1), Ok(Admission::Queued(_))));
}

#[tokio::test]
async fn a_draining_pod_gets_nothing_new() {
    for limit in [None, Some(3), Some(1000)] {
        let breaker = serving(limit, 3);
        let drained = endpoint(&breaker, 2).unwrap();
        breaker.pod_updated(&PodFacts { draining: true, ready: true, ..facts(2) });
        let inside = enter(&breaker, 6);
        assert_eq!((drained.in_flight(), inside.len()), (0, 6), "{limit:?}");
        // A running probe does not bring it back.
        breaker.endpoint_ready(&drained);
        drop(inside);
        drop(enter(&breaker, 6));
        assert_eq!(drained.in_flight(), 0);
        let _inside = enter(&breaker, 6);
        assert_eq!(drained.in_flight(), 0, "{limit:?}");
        // It is no longer being removed, and serves again.
        breaker.pod_updated(&PodFacts { ready: true, ..facts(2) });
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_pod_is_ejected_for_longer_each_time() {
    let breaker = serving(Some(1), 1);
    let pod = endpoint(&breaker, 1).unwrap();
    for connect_failures in 0..5 {
        assert_eq!(pod.record_connect_failure(), connect_failures);
    }
    let permit = enter(&breaker, 1).pop().unwrap();
    let (sequence, arrived) = (permit.sequence(), permit.arrived());
    let behind = park(&breaker);
    permit.connect_failed();
    let Ok(Admission::Queued(mut again)) = breaker.readmit(&Target::ANY, || 1, sequence, arrived) else {
        panic!("it has no other pod")
    };
    // A successful probe is no response to a request, and does not reset the backoff.
    breaker.endpoint_ready(&pod);
    let Ok(Ok(mut permit)) = again.receiver.try_recv() else { panic!("the first in the queue is granted first") };
    again.done = true;
    assert_eq!(pod.record_connect_failure(), 6);
    permit.mark_responded();
    drop(permit);
    assert_eq!(pod.record_connect_failure(), 0, "a response does");
    drop(behind);
}

#[tokio::test]
async fn requests_of_an_ejected_pod_go_to_the_others() {
    let breaker = serving(Some(5), 2);
    let first = endpoint(&breaker, 1).unwrap();
    let permit = enter(&breaker, 1).pop().unwrap();
    assert!(Arc::ptr_eq(permit.endpoint(), &first));
    let (sequence, arrived) = (permit.sequence(), permit.arrived());
    permit.connect_failed();
    assert!(
        matches!(breaker.readmit(&Target::ANY, || 1, sequence, arrived), Ok(Admission::Granted(permit)) if !Arc::ptr_eq(permit.endpoint(), &first))
    );
    drop(enter(&breaker, 5));
    assert_eq!(first.in_flight(), 0);
}
