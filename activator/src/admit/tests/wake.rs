//! When a revision is woken.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_wake_is_retried_until_there_is_a_pod() {
    let breaker = breaker(None, 10);
    assert_eq!(breaker.step(), Step::Done);
    let Ok(Admission::Queued(ticket)) = breaker.admit(&Target::ANY, || 1) else { panic!("there is no pod") };
    let wake = Step::Wake { revision: REVISION.into(), replicas: 1 };
    assert_eq!(breaker.step(), wake);
    for result in [
        Ok(()),
        Err(WakeError::Awake),
        Err(WakeError::Missing),
        Err(WakeError::Busy { after: None, message: String::new() }),
    ] {
        breaker.woken(REVISION, result);
        let Step::Wait(until) = breaker.step() else { panic!("it is woken without a pause") };
        assert!(until <= Instant::now() + Duration::from_secs(5));
        tokio::time::sleep_until(until).await;
        assert_eq!(breaker.step(), wake);
    }
    // A pod that is starting is waited for; one that is being removed is replaced at once.
    breaker.woken(REVISION, Ok(()));
    breaker.pod_updated(&PodFacts { ip: None, ..facts(1) });
    assert!(matches!(breaker.step(), Step::Wait(_)));
    breaker.pod_updated(&PodFacts { ip: None, draining: true, ..facts(1) });
    assert_eq!(breaker.step(), wake);
    drop(ticket);
    assert_eq!(breaker.step(), Step::Done);
}

#[tokio::test]
async fn a_pod_that_becomes_unready_gets_no_requests() {
    let breaker = breaker(None, 10);
    breaker.pod_updated(&PodFacts { ready: true, ..facts(1) });
    assert!(matches!(breaker.admit(&Target::ANY, || 1), Ok(Admission::Granted(_))));
    breaker.pod_updated(&facts(1));
    assert!(matches!(breaker.admit(&Target::ANY, || 1), Ok(Admission::Queued(_))));
    breaker.pod_updated(&PodFacts { ready: true, ..facts(1) });
    assert!(matches!(breaker.admit(&Target::ANY, || 1), Ok(Admission::Granted(_))));
}

#[tokio::test]
async fn queued_requests_move_with_the_traffic_in_order() {
    let breaker = breaker(None, 10);
    let mut callers = Callers::default();
    (0..5).for_each(|_| callers.enter(breaker.admit(&Target::ANY, || 1)));
    breaker.set_traffic(&[]);
    breaker.set_traffic(&shares(&[("f-00002", 100)]));
    breaker.pod_updated(&PodFacts { revision: "f-00002".into(), ready: true, ..facts(9) });
    callers.collect();
    assert!(callers.inside.iter().map(Permit::sequence).eq(1..=5));
    let mut told = vec![];
    breaker.context().ledger.each(|demand| told.push((demand.revision.clone(), demand.in_flight, demand.queued)));
    assert_eq!(told, [("f-00002".to_owned(), 5, 0), (REVISION.to_owned(), 0, 0)], "the empty revision is reported");
    assert_eq!(breaker.lock().revisions.len(), 1, "the previous revision is forgotten");
}
