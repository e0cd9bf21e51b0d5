//! Rate limits of wakes, per function and namespace.

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

fn breakers(bounds: Bounds, count: usize, cold_start: Duration) -> Vec<Arc<Breaker>> {
    let context = context(bounds);
    let namespace = Namespace::new(bounds.namespace, bounds.namespace_wakes);
    let policy = Policy { cold_start, ..policy(None, 10) };
    (0..count).map(|_| breaker_in(&context, &namespace, policy.clone())).collect()
}

/// Queues a request, and returns the time until its wake.
async fn wake(breaker: &Arc<Breaker>) -> Duration {
    let (began, ticket) = (Instant::now(), park(breaker));
    loop {
        match breaker.step() {
            Step::Wake { .. } => break,
            Step::Wait(until) => tokio::time::sleep_until(until).await,
            Step::Done => panic!("requests are queued"),
        }
    }
    breaker.woken(REVISION, Ok(()));
    let took = began.elapsed();
    assert!(matches!(breaker.step(), Step::Wait(_)), "a pod is on its way, and that is what it waits for");
    drop(ticket);
    took
}

/// Creates and deletes a pod.
fn pass(breaker: &Arc<Breaker>, pod: u16) {
    serve(breaker, pod);
    breaker.pod_deleted(REVISION, &pod.to_string());
}

#[tokio::test(start_paused = true)]
async fn wakes_of_a_function_are_rate_limited() {
    let breaker = &breakers(bounds(3, 1000), 1, 60 * SECOND)[0];
    let mut waits = vec![];
    for pod in 1..=5 {
        waits.push(wake(breaker).await.as_secs());
        pass(breaker, pod);
    }
    assert_eq!(waits, [0, 0, 0, 10, 10]);
    let told = breaker.context().metrics.encode().unwrap();
    assert!(told.contains(r#"rouse_activator_wakes_throttled_total{scope="function"} 2"#), "{told}");
    // After a pause there is no delay.
    tokio::time::advance(60 * SECOND).await;
    assert_eq!(wake(breaker).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_rejected_at_once_if_its_wake_would_be_too_late() {
    let breaker = &breakers(bounds(1, 1000), 1, 5 * SECOND)[0];
    wake(breaker).await;
    pass(breaker, 1);
    let refused = breaker.admit(&Target::ANY, || 1).unwrap_err();
    assert_eq!(refused, Rejection::Throttled { scope: Scope::Function, retry_after: 10 * SECOND });
    assert_eq!((breaker.queued(), breaker.context().budget.used()), (0, NOTHING));
    assert_eq!(breaker.step(), Step::Done);
    // Rejected requests delay no others.
    tokio::time::advance(5 * SECOND).await;
    drop(park(breaker));
    assert_eq!(wake(breaker).await, 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn failed_wakes_take_no_token() {
    let breaker = &breakers(bounds(1, 1), 1, 60 * SECOND)[0];
    let ticket = park(breaker);
    for _ in 0..5 {
        let busy = WakeError::Busy { after: None, message: String::new() };
        for result in [Err(WakeError::Awake), Err(WakeError::Missing), Err(busy)] {
            loop {
                match breaker.step() {
                    Step::Wake { .. } => break,
                    Step::Wait(until) => tokio::time::sleep_until(until).await,
                    Step::Done => panic!("requests are queued"),
                }
            }
            breaker.woken(REVISION, result);
        }
    }
    drop(ticket);
    let now = Instant::now();
    assert_eq!(breaker.lock().wakes.next(now), now, "one turn was taken, long ago");
    assert!(wake(breaker).await < 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn clients_that_disconnect_take_one_token_only() {
    let breakers = breakers(bounds(2, 3), 2, 60 * SECOND);
    for _ in 0..100 {
        drop(park(&breakers[0]));
    }
    assert_eq!([wake(&breakers[0]).await, wake(&breakers[1]).await], [Duration::ZERO; 2]);
}

#[tokio::test(start_paused = true)]
async fn functions_of_a_namespace_are_woken_in_order() {
    let breakers = breakers(bounds(10, 2), 5, 60 * SECOND);
    let began = Instant::now();
    let tickets: Vec<_> = breakers.iter().map(park).collect();
    let mut woken = vec![];
    for breaker in breakers.iter().rev() {
        match breaker.step() {
            Step::Wake { .. } => woken.push(0),
            Step::Wait(until) => woken.push((until - began).as_secs()),
            Step::Done => panic!("requests are queued"),
        }
    }
    assert_eq!(woken, [6, 4, 2, 0, 0]);
    drop(tickets);
}

#[tokio::test(start_paused = true)]
async fn retried_and_warm_requests_take_no_token() {
    let breaker = &breakers(bounds(1, 1), 1, SECOND)[0];
    wake(breaker).await;
    serve(breaker, 1);
    let Ok(Admission::Granted(permit)) = breaker.admit(&Target::ANY, || 1) else { panic!("it serves") };
    let (sequence, arrived) = (permit.sequence(), permit.arrived());
    breaker.pod_deleted(REVISION, "1");
    drop(permit);
    let again = breaker.readmit(&Target::ANY, || 1, sequence, arrived);
    assert!(matches!(again, Ok(Admission::Queued(_))), "{again:?}");
    assert!(matches!(breaker.admit(&Target::ANY, || 1), Err(Rejection::Throttled { .. })));
    serve(breaker, 2);
    assert!(matches!(breaker.admit(&Target::ANY, || 1), Ok(Admission::Granted(_))));
}
