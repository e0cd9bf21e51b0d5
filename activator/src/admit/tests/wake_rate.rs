//! Rate limits of wakes, per function and namespace.

use super::*;
use crate::{admit::wake_tokens::Tokens, rate_limit::Rate};

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

/// Gets a request for the function of a namespace of its own.
fn breaker_of(context: &Arc<Context>, cold_start: Duration) -> Arc<Breaker> {
    let namespace = Namespace::new(context.bounds.namespace, context.bounds.namespace_wakes);
    breaker_in(context, &namespace, Policy { cold_start, ..policy(None, 10) })
}

/// Returns the time until the next wake, if it is due in more than none.
fn next_wake(breaker: &Arc<Breaker>) -> Option<Duration> {
    match breaker.step() {
        Step::Wake { .. } => None,
        Step::Wait(until) => Some(until - Instant::now()),
        Step::Done => panic!("requests are queued"),
    }
}

#[tokio::test(start_paused = true)]
async fn functions_that_are_woken_again_and_again_leave_half_of_the_rate() {
    let breakers = breakers(bounds(1000, 10), 25, 60 * SECOND);
    let (strangers, fresh) = breakers.split_at(15);
    for (pod, breaker) in (1..).zip(strangers) {
        wake(breaker).await;
        pass(breaker, pod);
    }
    for round in 0..3 {
        // The bucket is full again. All who were there before come back at once.
        tokio::time::advance(60 * SECOND).await;
        let tickets: Vec<_> = strangers.iter().map(park).collect();
        let due = strangers.iter().filter(|breaker| next_wake(breaker).is_none()).count();
        assert_eq!(due, 5, "round {round}");
        for breaker in &fresh[round * 3..][..3] {
            assert_eq!(wake(breaker).await, Duration::ZERO, "round {round}");
        }
        drop(tickets);
        for breaker in strangers {
            breaker.lock().revisions.iter_mut().for_each(|revision| revision.wake.tokens = Tokens::default());
        }
    }
    // Whoever was not woken for a while is as good as new.
    tokio::time::advance(600 * SECOND).await;
    let tickets: Vec<_> = strangers.iter().map(park).collect();
    assert_eq!(strangers.iter().filter(|breaker| next_wake(breaker).is_none()).count(), 10);
    drop(tickets);
}

#[tokio::test(start_paused = true)]
async fn wakes_of_all_namespaces_are_rate_limited() {
    let bounds = Bounds { process_wakes: Rate { burst: 2, interval: 2 * SECOND }, ..bounds(1000, 1000) };
    let context = context(bounds);
    let mut waits = vec![];
    for _ in 0..4 {
        waits.push(wake(&breaker_of(&context, 60 * SECOND)).await.as_secs());
    }
    assert_eq!(waits, [0, 0, 2, 2]);
    let refused = breaker_of(&context, SECOND).admit(&Target::ANY, || 1).unwrap_err();
    assert_eq!(refused, Rejection::Throttled { scope: Scope::Process, retry_after: 2 * SECOND });
    let told = context.metrics.encode().unwrap();
    assert!(told.contains(r#"rouse_activator_wakes_throttled_total{scope="process"} 2"#), "{told}");
}

#[tokio::test(start_paused = true)]
async fn what_one_namespace_delays_takes_nothing_from_others() {
    let bounds = Bounds { process_wakes: Rate { burst: 3, interval: 10 * SECOND }, ..bounds(1000, 1) };
    let context = context(bounds);
    let namespace = Namespace::new(bounds.namespace, bounds.namespace_wakes);
    let policy = Policy { cold_start: 60 * SECOND, ..policy(None, 10) };
    let flooded: Vec<_> = (0..20).map(|_| breaker_in(&context, &namespace, policy.clone())).collect();
    let tickets: Vec<_> = flooded.iter().map(park).collect();
    assert_eq!(flooded.iter().filter(|breaker| next_wake(breaker).is_none()).count(), 1);
    for _ in 0..2 {
        assert_eq!(wake(&breaker_of(&context, SECOND)).await, Duration::ZERO);
    }
    drop(tickets);
}

/// What the operator would scale a revision at zero to by what this process reports.
fn decided(breaker: &Arc<Breaker>, state: &mut rouse_autoscaler::State, began: Instant) -> u32 {
    use rouse_autoscaler::{Demand, Observed, Policy, decide};
    let report = breaker.context().ledger.read(None);
    let told = report.revisions.into_iter().find(|told| *told.function == *breaker.id().key.name).unwrap_or_default();
    let demand = Demand {
        in_flight: told.in_flight,
        queued: told.queued,
        arrivals: told.arrivals,
        completions: told.completions,
        abandoned: told.abandoned,
        request_us: told.request_us,
        busy_us: told.busy_us.unwrap_or_default(),
        served_us: told.served_us,
    };
    decide(began.elapsed(), &demand, &Observed { desired: 0, ready: 0 }, &Policy::default(), state).replicas
}

#[tokio::test(start_paused = true)]
async fn the_autoscaler_starts_nothing_that_the_rate_delays() {
    let bounds = Bounds { namespace_wakes: Rate { burst: 1, interval: 10 * SECOND }, ..Bounds::generous() };
    let context = context(bounds);
    let namespace = Namespace::new(bounds.namespace, bounds.namespace_wakes);
    let began = Instant::now();
    let breakers: Vec<_> = (0..5)
        .map(|n| {
            let id = FunctionId { key: FunctionKey::new("ns", &format!("f{n}")), uid: "u".into() };
            let policy = Policy { cold_start: 60 * SECOND, ..policy(None, 10) };
            let breaker = Breaker::new(id, policy, namespace.clone(), context.clone());
            breaker.set_traffic(&shares(&[(REVISION, 100)]));
            breaker
        })
        .collect();
    let mut states = vec![rouse_autoscaler::State::new(Duration::ZERO); 5];
    let tickets: Vec<_> = breakers.iter().flat_map(|breaker| [park(breaker), park(breaker)]).collect();
    for tenth in 0..600 {
        let due = breakers.iter().filter(|breaker| next_wake(breaker).is_none()).count();
        let decided = breakers.iter().zip(&mut states).map(|(breaker, state)| decided(breaker, state, began));
        let scaled = decided.filter(|replicas| *replicas > 0).count();
        assert_eq!((due, scaled), (5.min(1 + tenth / 100), 5.min(1 + tenth / 100)), "after {tenth} tenths");
        let held: u64 = context.ledger.read(None).revisions.iter().map(|told| told.held).sum();
        assert_eq!(held as usize, 10 - 2 * due);
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    drop(tickets);
    let left = context.ledger.read(None).revisions;
    assert!(left.iter().all(|told| told.held + told.queued == 0 && told.abandoned == 2), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_are_no_longer_held_once_a_pod_is_there() {
    let breakers = breakers(bounds(1000, 1), 2, 60 * SECOND);
    let first = park(&breakers[0]);
    let mut tickets: Vec<_> = (0..3).map(|_| park(&breakers[1])).collect();
    let told = || {
        let told = breakers[1].context().ledger.read(None).revisions;
        let sum = |of: fn(&rouse_crds::demand::RevisionDemand) -> u64| told.iter().map(of).sum::<u64>();
        (sum(|t| t.held), sum(|t| t.queued), sum(|t| t.in_flight), sum(|t| t.arrivals))
    };
    assert_eq!(told(), (3, 1, 0, 1));
    drop(tickets.pop());
    assert_eq!(told(), (2, 1, 0, 1));
    // Somebody scaled it up.
    breakers[1].pod_updated(&facts(2));
    assert!(matches!(breakers[1].step(), Step::Wait(_) | Step::Done));
    assert_eq!(told(), (0, 3, 0, 3), "the autoscaler may add pods for them");
    breakers[1].endpoint_ready(&endpoint(&breakers[1], 2).unwrap());
    assert_eq!(told(), (0, 1, 2, 3));
    drop((first, tickets));
}

#[tokio::test(start_paused = true)]
async fn requests_for_a_pod_that_is_on_its_way_are_not_held() {
    let breaker = &breakers(bounds(1000, 1), 1, 60 * SECOND)[0];
    let first = park(breaker);
    assert!(matches!(breaker.step(), Step::Wake { .. }));
    breaker.woken(REVISION, Ok(()));
    let second = park(breaker);
    tokio::time::advance(SECOND).await;
    assert!(matches!(breaker.step(), Step::Wait(_)), "the next wake is delayed");
    let told = || {
        let told = breaker.context().ledger.read(None).revisions.remove(0);
        (told.held, told.queued)
    };
    assert_eq!(told(), (0, 2), "the pod must not be removed for want of requests");
    // It was and is gone, and the next wake is delayed.
    serve(breaker, 1);
    drop((first, second));
    breaker.pod_deleted(REVISION, "1");
    let third = park(breaker);
    assert_eq!(told(), (1, 0));
    drop(third);
}
