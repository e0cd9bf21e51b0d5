//! A crowd that waits is let in step by step, and spread over the pods that come.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_crowd_is_let_in_step_by_step() {
    let breaker = breaker(None, 10_000);
    let mut callers = Callers::default();
    (0..1000).for_each(|_| callers.enter(breaker.admit(&Target::ANY, || 1)));
    serve(&breaker, 1);
    callers.collect();
    assert_eq!(callers.inside.len(), 100);
    // One ends, and so there is room for it and for one more.
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
    // Nobody waits: whoever comes now goes in at once.
    callers.enter(breaker.admit(&Target::ANY, || 1));
    assert!(callers.waiting.is_empty());
}

/// So many wait, and so many pods were asked for.
fn woken(ramp_limit: usize) -> (Arc<Breaker>, Callers, u32) {
    let breaker = breaker(None, 10_000);
    let mut callers = Callers::default();
    (0..ramp_limit).for_each(|_| callers.enter(breaker.admit(&Target::ANY, || 1)));
    let Step::Wake { replicas, .. } = breaker.step() else { panic!("it is asleep") };
    breaker.woken(REVISION, Ok(()));
    (breaker, callers, replicas)
}

fn loads(breaker: &Breaker, pods: std::ops::RangeInclusive<u16>) -> Vec<u32> {
    pods.map(|pod| endpoint(breaker, pod).unwrap().in_flight()).collect()
}

#[tokio::test(start_paused = true)]
async fn pods_that_come_one_after_the_other_share_the_crowd() {
    let (breaker, mut callers, replicas) = woken(700);
    assert_eq!(replicas, 10);
    for pod in 1..=10 {
        serve(&breaker, pod);
        // Time passes between one pod and the next, and requests end: the first pods do not take the others' share.
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
async fn pods_that_do_not_come_are_not_waited_for_long() {
    let (breaker, mut callers, replicas) = woken(700);
    assert_eq!(replicas, 10);
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
async fn with_a_limit_each_pod_takes_what_it_may() {
    let breaker = breaker(Some(50), 10_000);
    let mut callers = Callers::default();
    (0..200).for_each(|_| callers.enter(breaker.admit(&Target::ANY, || 1)));
    assert!(matches!(breaker.step(), Step::Wake { replicas: 3.., .. }));
    breaker.woken(REVISION, Ok(()));
    serve(&breaker, 1);
    callers.collect();
    assert_eq!(loads(&breaker, 1..=1), [50]);
}
