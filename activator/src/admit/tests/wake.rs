//! When a revision is woken, and by what it is known that it is awake.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_wake_is_repeated_as_long_as_there_is_no_pod() {
    let gate = gate(None, 10);
    assert_eq!(gate.step(), Step::Done);
    let Ok(Entered::Later(ticket)) = gate.enter(&Target::ANY, || 1) else { panic!("there is no pod") };
    let wake = Step::Wake { revision: REVISION.into(), replicas: 1 };
    assert_eq!(gate.step(), wake);
    for result in [
        Ok(()),
        Err(WakeError::Awake),
        Err(WakeError::Missing),
        Err(WakeError::Busy { after: None, message: String::new() }),
    ] {
        gate.woken(REVISION, result);
        let Step::Wait(until) = gate.step() else { panic!("it is woken without a pause") };
        assert!(until <= Instant::now() + Duration::from_secs(5));
        tokio::time::sleep_until(until).await;
        assert_eq!(gate.step(), wake);
    }
    // A pod that is on its way is waited for; one that goes is replaced at once.
    gate.woken(REVISION, Ok(()));
    gate.pod_seen(&PodFacts { ip: None, ..facts(1) });
    assert!(matches!(gate.step(), Step::Wait(_)));
    gate.pod_seen(&PodFacts { ip: None, draining: true, ..facts(1) });
    assert_eq!(gate.step(), wake);
    drop(ticket);
    assert_eq!(gate.step(), Step::Done);
}

#[tokio::test]
async fn readiness_that_is_lost_is_believed() {
    let gate = gate(None, 10);
    gate.pod_seen(&PodFacts { ready: true, ..facts(1) });
    assert!(matches!(gate.enter(&Target::ANY, || 1), Ok(Entered::Now(_))));
    gate.pod_seen(&facts(1));
    assert!(matches!(gate.enter(&Target::ANY, || 1), Ok(Entered::Later(_))));
    gate.pod_seen(&PodFacts { ready: true, ..facts(1) });
    assert!(matches!(gate.enter(&Target::ANY, || 1), Ok(Entered::Now(_))));
}

#[tokio::test]
async fn traffic_that_moves_takes_the_waiting_along_in_order() {
    let gate = gate(None, 10);
    let mut callers = Callers::default();
    (0..5).for_each(|_| callers.enter(gate.enter(&Target::ANY, || 1)));
    gate.set_traffic(&[]);
    gate.set_traffic(&shares(&[("f-00002", 100)]));
    gate.pod_seen(&PodFacts { revision: "f-00002".into(), ready: true, ..facts(9) });
    callers.collect();
    assert!(callers.inside.iter().map(Lease::sequence).eq(1..=5));
    let mut told = vec![];
    gate.context().ledger.each(|demand| told.push((demand.revision.clone(), demand.in_flight, demand.queued)));
    assert_eq!(told, [("f-00002".to_owned(), 5, 0), (REVISION.to_owned(), 0, 0)], "that it has nothing is told");
    assert_eq!(gate.lock().revisions.len(), 1, "the former revision is forgotten");
}
