//! Ramp: queued requests are granted step by step, and spread over pods as they start.

use super::*;

#[tokio::test(start_paused = true)]
async fn queued_requests_are_granted_step_by_step() {
    let breaker = breaker(None, 10_000);
    let mut callers = Callers::default();
    (0..1000).for_each(|_| callers.enter(breaker.admit(&Target::ANY, || 1)));
    serve(&breaker, 1);
    callers.collect();
    assert_eq!(callers.inside.len(), 100);
    // One ends, so there is capacity for it and for one more.
    callers.inside.pop();
    callers.collect();
    assert_eq!(callers.inside.len(), 101);
    breaker.ramp();
    callers.collect();
    assert_eq!(callers.inside.len(), 202);
    for _ in 0..3 {
        breaker.ramp();
        callers.collect();
    }
    assert!(callers.waiting.is_empty());
    // The queue is empty: new requests are granted at once.
    callers.enter(breaker.admit(&Target::ANY, || 1));
    assert!(callers.waiting.is_empty());
}

/// A breaker with this many queued requests, and so many pods on their way: a wake asks for one, the autoscaler for the others.
fn woken(queued: usize, pods: u16) -> (Arc<Breaker>, Callers) {
    let breaker = breaker(None, 10_000);
    let mut callers = Callers::default();
    (0..queued).for_each(|_| callers.enter(breaker.admit(&Target::ANY, || 1)));
    assert!(matches!(breaker.step(), Step::Wake { replicas: 1, .. }));
    breaker.woken(REVISION, Ok(()));
    (1..=pods).for_each(|pod| breaker.pod_updated(&facts(pod)));
    (breaker, callers)
}

fn loads(breaker: &Breaker, pods: std::ops::RangeInclusive<u16>) -> Vec<u32> {
    pods.map(|pod| endpoint(breaker, pod).unwrap().in_flight()).collect()
}

#[tokio::test(start_paused = true)]
async fn pods_that_start_one_after_the_other_share_the_queue() {
    let (breaker, mut callers) = woken(700, 10);
    for pod in 1..=10 {
        serve(&breaker, pod);
        // Time passes between the pods, and requests end: the first pods do not take the share of the others.
        breaker.ramp();
        callers.collect();
        let ended = callers.inside.len() / 10;
        callers.inside.drain(..ended);
        callers.collect();
        let most = loads(&breaker, 1..=pod).into_iter().max().unwrap();
        assert!(most <= 70, "{pod} pods serve and one has {most}");
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    breaker.ramp();
    callers.collect();
    assert!(callers.waiting.is_empty(), "all are there, and {} wait", callers.waiting.len());
}

#[tokio::test(start_paused = true)]
async fn missing_pods_are_not_waited_for_long() {
    let (breaker, mut callers) = woken(700, 10);
    serve(&breaker, 1);
    for _ in 0..5 {
        breaker.ramp();
    }
    callers.collect();
    assert_eq!(callers.inside.len(), 70);
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut ticks = 0;
    while !callers.waiting.is_empty() {
        breaker.ramp();
        callers.collect();
        ticks += 1;
        assert!(ticks < 10, "{} wait", callers.waiting.len());
    }
    assert_eq!(loads(&breaker, 1..=1), [700]);
}

#[tokio::test(start_paused = true)]
async fn with_a_concurrency_limit_there_is_no_ramp() {
    let breaker = breaker(Some(50), 10_000);
    let mut callers = Callers::default();
    (0..200).for_each(|_| callers.enter(breaker.admit(&Target::ANY, || 1)));
    assert!(matches!(breaker.step(), Step::Wake { replicas: 1, .. }));
    breaker.woken(REVISION, Ok(()));
    serve(&breaker, 1);
    callers.collect();
    assert_eq!(loads(&breaker, 1..=1), [50]);
}
