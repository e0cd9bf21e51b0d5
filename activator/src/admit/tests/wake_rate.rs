//! How often a function and its neighbours are woken.

use super::*;
use crate::rate_limit::Rate;

const SECOND: Duration = Duration::from_secs(1);

fn bounds(function: u32, namespace: u32) -> Bounds {
    Bounds {
        function_wakes: Rate { burst: function, interval: 10 * SECOND },
        namespace_wakes: Rate { burst: namespace, interval: 2 * SECOND },
        ..Bounds::generous()
    }
}

fn gates(bounds: Bounds, count: usize, cold_start: Duration) -> Vec<Arc<Gate>> {
    let context = context(bounds);
    let namespace = Namespace::new(bounds.namespace, bounds.namespace_wakes);
    let policy = Policy { cold_start, ..policy(None, 10) };
    (0..count).map(|_| gate_in(&context, &namespace, policy.clone())).collect()
}

/// Somebody comes; how long it takes until the function is woken.
async fn wake(gate: &Arc<Gate>) -> Duration {
    let (began, ticket) = (Instant::now(), park(gate));
    loop {
        match gate.step() {
            Step::Wake { .. } => break,
            Step::Wait(until) => tokio::time::sleep_until(until).await,
            Step::Done => panic!("somebody waits"),
        }
    }
    gate.woken(REVISION, Ok(()));
    let took = began.elapsed();
    assert!(matches!(gate.step(), Step::Wait(_)), "a pod is on its way, and that is what it waits for");
    drop(ticket);
    took
}

/// The pod comes and goes.
fn pass(gate: &Arc<Gate>, pod: u16) {
    serve(gate, pod);
    gate.pod_gone(REVISION, &pod.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_function_that_is_woken_too_often_waits_for_its_turn() {
    let gate = &gates(bounds(3, 1000), 1, 60 * SECOND)[0];
    let mut waits = vec![];
    for pod in 1..=5 {
        waits.push(wake(gate).await.as_secs());
        pass(gate, pod);
    }
    assert_eq!(waits, [0, 0, 0, 10, 10]);
    let told = gate.context().metrics.encode().unwrap();
    assert!(told.contains(r#"rouse_activator_wakes_throttled_total{scope="function"} 2"#), "{told}");
    // What rests is not throttled.
    tokio::time::advance(60 * SECOND).await;
    assert_eq!(wake(gate).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_comes_too_late_is_told_at_once() {
    let gate = &gates(bounds(1, 1000), 1, 5 * SECOND)[0];
    wake(gate).await;
    pass(gate, 1);
    let refused = gate.enter(&Target::ANY, || 1).unwrap_err();
    assert_eq!(refused, Refusal::Throttled { scope: Scope::Function, retry_after: 10 * SECOND });
    assert_eq!((gate.queued(), gate.context().budget.used()), (0, NOTHING));
    assert_eq!(gate.step(), Step::Done);
    // Those who are refused push nobody back.
    tokio::time::advance(5 * SECOND).await;
    drop(park(gate));
    assert_eq!(wake(gate).await, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn tries_that_wake_nothing_cost_nothing() {
    let gate = &gates(bounds(1, 1), 1, 60 * SECOND)[0];
    let ticket = park(gate);
    for _ in 0..5 {
        let busy = WakeError::Busy { after: None, message: String::new() };
        for result in [Err(WakeError::Awake), Err(WakeError::Missing), Err(busy)] {
            loop {
                match gate.step() {
                    Step::Wake { .. } => break,
                    Step::Wait(until) => tokio::time::sleep_until(until).await,
                    Step::Done => panic!("somebody waits"),
                }
            }
            gate.woken(REVISION, result);
        }
    }
    drop(ticket);
    let now = Instant::now();
    assert_eq!(gate.lock().wakes.next(now), now, "one turn was taken, long ago");
    assert!(wake(gate).await < 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn clients_that_come_and_leave_take_one_turn_only() {
    let gates = gates(bounds(2, 3), 2, 60 * SECOND);
    for _ in 0..100 {
        drop(park(&gates[0]));
    }
    assert_eq!([wake(&gates[0]).await, wake(&gates[1]).await], [Duration::ZERO; 2]);
}

#[tokio::test(start_paused = true)]
async fn neighbours_get_their_turns_in_the_order_in_which_they_were_called() {
    let gates = gates(bounds(10, 2), 5, 60 * SECOND);
    let began = Instant::now();
    let tickets: Vec<_> = gates.iter().map(park).collect();
    let mut woken = vec![];
    for gate in gates.iter().rev() {
        match gate.step() {
            Step::Wake { .. } => woken.push(0),
            Step::Wait(until) => woken.push((until - began).as_secs()),
            Step::Done => panic!("somebody waits"),
        }
    }
    assert_eq!(woken, [6, 4, 2, 0, 0]);
    drop(tickets);
}

#[tokio::test(start_paused = true)]
async fn a_retried_request_and_a_warm_one_need_no_turn() {
    let gate = &gates(bounds(1, 1), 1, SECOND)[0];
    wake(gate).await;
    serve(gate, 1);
    let Ok(Entered::Now(lease)) = gate.enter(&Target::ANY, || 1) else { panic!("it serves") };
    let (sequence, arrived) = (lease.sequence(), lease.arrived());
    gate.pod_gone(REVISION, "1");
    drop(lease);
    let again = gate.enter_again(&Target::ANY, || 1, sequence, arrived);
    assert!(matches!(again, Ok(Entered::Later(_))), "{again:?}");
    assert!(matches!(gate.enter(&Target::ANY, || 1), Err(Refusal::Throttled { .. })));
    serve(gate, 2);
    assert!(matches!(gate.enter(&Target::ANY, || 1), Ok(Entered::Now(_))));
}
