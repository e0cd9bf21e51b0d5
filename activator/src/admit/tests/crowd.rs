//! A crowd that waits is let in step by step, and spread over the pods that come.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_crowd_is_let_in_step_by_step() {
    let gate = gate(None, 10_000);
    let mut callers = Callers::default();
    (0..1000).for_each(|_| callers.enter(gate.enter(&Target::ANY, || 1)));
    serve(&gate, 1);
    callers.collect();
    assert_eq!(callers.inside.len(), 100);
    // One ends, and so there is room for it and for one more.
    callers.inside.pop();
    callers.collect();
    assert_eq!(callers.inside.len(), 101);
    gate.ramp();
    callers.collect();
    assert_eq!(callers.inside.len(), 202);
    for _ in 0..3 {
        gate.ramp();
        callers.collect();
    }
    assert!(callers.waiting.is_empty());
    // Nobody waits: whoever comes now goes in at once.
    callers.enter(gate.enter(&Target::ANY, || 1));
    assert!(callers.waiting.is_empty());
}

/// So many wait, and so many pods are on their way: a wake asks for one, and the autoscaler for the others.
fn woken(crowd: usize, pods: u16) -> (Arc<Gate>, Callers) {
    let gate = gate(None, 10_000);
    let mut callers = Callers::default();
    (0..crowd).for_each(|_| callers.enter(gate.enter(&Target::ANY, || 1)));
    assert!(matches!(gate.step(), Step::Wake { replicas: 1, .. }));
    gate.woken(REVISION, Ok(()));
    (1..=pods).for_each(|pod| gate.pod_seen(&facts(pod)));
    (gate, callers)
}

fn loads(gate: &Gate, pods: std::ops::RangeInclusive<u16>) -> Vec<u32> {
    pods.map(|pod| endpoint(gate, pod).unwrap().in_flight()).collect()
}

#[tokio::test(start_paused = true)]
async fn pods_that_come_one_after_the_other_share_the_crowd() {
    let (gate, mut callers) = woken(700, 10);
    for pod in 1..=10 {
        serve(&gate, pod);
        // Time passes between one pod and the next, and requests end: the first pods do not take the others' share.
        gate.ramp();
        callers.collect();
        let ended = callers.inside.len() / 10;
        callers.inside.drain(..ended);
        callers.collect();
        let most = loads(&gate, 1..=pod).into_iter().max().unwrap();
        assert!(most <= 70, "{pod} pods serve and one has {most}");
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    gate.ramp();
    callers.collect();
    assert!(callers.waiting.is_empty(), "all are there, and {} wait", callers.waiting.len());
}

#[tokio::test(start_paused = true)]
async fn pods_that_do_not_come_are_not_waited_for_long() {
    let (gate, mut callers) = woken(700, 10);
    serve(&gate, 1);
    for _ in 0..5 {
        gate.ramp();
    }
    callers.collect();
    assert_eq!(callers.inside.len(), 70);
    tokio::time::advance(Duration::from_secs(1)).await;
    let mut ticks = 0;
    while !callers.waiting.is_empty() {
        gate.ramp();
        callers.collect();
        ticks += 1;
        assert!(ticks < 10, "{} wait", callers.waiting.len());
    }
    assert_eq!(loads(&gate, 1..=1), [700]);
}

#[tokio::test(start_paused = true)]
async fn with_a_limit_each_pod_takes_what_it_may() {
    let gate = gate(Some(50), 10_000);
    let mut callers = Callers::default();
    (0..200).for_each(|_| callers.enter(gate.enter(&Target::ANY, || 1)));
    assert!(matches!(gate.step(), Step::Wake { replicas: 1, .. }));
    gate.woken(REVISION, Ok(()));
    serve(&gate, 1);
    callers.collect();
    assert_eq!(loads(&gate, 1..=1), [50]);
}
