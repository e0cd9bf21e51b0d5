//! Which pod a request goes to.

use super::*;

/// A gate whose pods `1..=pods` serve.
fn serving(limit: Option<u32>, pods: u16) -> Arc<Gate> {
    let gate = gate(limit, 1000);
    (1..=pods).for_each(|pod| serve(&gate, pod));
    gate
}

fn enter(gate: &Arc<Gate>, count: usize) -> Vec<Lease> {
    let enter = |_| match gate.enter(&Target::ANY, || 1) {
        Ok(Entered::Now(lease)) => lease,
        other => panic!("{other:?}"),
    };
    (0..count).map(enter).collect()
}

fn load(gate: &Gate, pod: u16) -> u32 {
    endpoint(gate, pod).unwrap().in_flight()
}

#[tokio::test]
async fn small_limits_fill_one_pod_after_the_other() {
    let gate = serving(Some(2), 4);
    let mut inside = enter(&gate, 5);
    assert_eq!([1, 2, 3, 4].map(|pod| load(&gate, pod)), [2, 2, 1, 0]);
    inside.remove(0);
    inside.append(&mut enter(&gate, 1));
    assert_eq!([1, 2, 3, 4].map(|pod| load(&gate, pod)), [2, 2, 1, 0], "the first with room");
}

#[tokio::test]
async fn of_two_pods_the_less_loaded_gets_it_every_time() {
    // Two picks that could fall on the same pod would send every fourth request to the busier one.
    for limit in [None, Some(1000)] {
        let gate = serving(limit, 2);
        let mut inside = vec![];
        for _ in 0..200 {
            inside.append(&mut enter(&gate, 1));
            assert!(load(&gate, 1).abs_diff(load(&gate, 2)) <= 1, "{limit:?}");
        }
    }
}

#[tokio::test]
async fn many_pods_are_loaded_evenly() {
    let gate = serving(None, 50);
    let _inside = enter(&gate, 5000);
    let loads: Vec<_> = (1..=50).map(|pod| load(&gate, pod)).collect();
    assert!(loads.iter().all(|load| (80..=120).contains(load)), "{loads:?}");
}

#[tokio::test]
async fn a_pod_without_room_is_no_choice() {
    // With all but one full, whatever two are looked at, it is the one with room that gets it.
    let gate = serving(Some(20), 30);
    let inside = enter(&gate, 599);
    assert_eq!(inside.len(), 599);
    let _last = enter(&gate, 1);
    assert!((1..=30).all(|pod| load(&gate, pod) == 20));
    assert!(matches!(gate.enter(&Target::ANY, || 1), Ok(Entered::Later(_))));
}

#[tokio::test]
async fn a_draining_pod_gets_nothing_new() {
    for limit in [None, Some(3), Some(1000)] {
        let gate = serving(limit, 3);
        let drained = endpoint(&gate, 2).unwrap();
        gate.pod_seen(&PodFacts { draining: true, ready: true, ..facts(2) });
        let inside = enter(&gate, 6);
        assert_eq!((drained.in_flight(), inside.len()), (0, 6), "{limit:?}");
        // A probe that was under way does not bring it back.
        gate.admitted(&drained);
        drop(inside);
        drop(enter(&gate, 6));
        assert_eq!(drained.in_flight(), 0);
        let _inside = enter(&gate, 6);
        assert_eq!(drained.in_flight(), 0, "{limit:?}");
        // Spared after all, it serves again.
        gate.pod_seen(&PodFacts { ready: true, ..facts(2) });
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_be_connected_to_is_put_aside_for_longer_each_time() {
    let gate = serving(Some(1), 1);
    let pod = endpoint(&gate, 1).unwrap();
    for setbacks in 0..5 {
        assert_eq!(pod.set_back(), setbacks);
    }
    let lease = enter(&gate, 1).pop().unwrap();
    let (sequence, arrived) = (lease.sequence(), lease.arrived());
    let behind = park(&gate);
    lease.unreachable();
    let Ok(Entered::Later(mut again)) = gate.enter_again(&Target::ANY, || 1, sequence, arrived) else {
        panic!("it has no other pod")
    };
    // A probe finds it; that is no answer to a request, and does not make it as good as new.
    gate.admitted(&pod);
    let Ok(Ok(mut lease)) = again.answer.try_recv() else { panic!("whoever came first goes first") };
    again.over = true;
    assert_eq!(pod.set_back(), 6);
    lease.answered();
    drop(lease);
    assert_eq!(pod.set_back(), 0, "an answer does");
    drop(behind);
}

#[tokio::test]
async fn one_that_is_put_aside_leaves_its_requests_to_the_others() {
    let gate = serving(Some(5), 2);
    let first = endpoint(&gate, 1).unwrap();
    let lease = enter(&gate, 1).pop().unwrap();
    assert!(Arc::ptr_eq(lease.endpoint(), &first));
    let (sequence, arrived) = (lease.sequence(), lease.arrived());
    lease.unreachable();
    assert!(
        matches!(gate.enter_again(&Target::ANY, || 1, sequence, arrived), Ok(Entered::Now(lease)) if !Arc::ptr_eq(lease.endpoint(), &first))
    );
    drop(enter(&gate, 5));
    assert_eq!(first.in_flight(), 0);
}
