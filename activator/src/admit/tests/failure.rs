//! Pods that do not start: which requests are rejected and when, and that requests do not keep such pods alive.

use super::*;
use crate::admit::pod_tracker::NODE_GRACE;

/// A pod whose container has ended, and is restarted at once.
fn exited(number: u16) -> PodFacts {
    PodFacts { failure: failing("Error"), ended: Ended::Now, ..facts(number) }
}

/// The same pod, whose container runs again.
fn runs_again(number: u16) -> PodFacts {
    PodFacts { ended: Ended::Before, ..facts(number) }
}

fn held_back(number: u16) -> PodFacts {
    PodFacts { failure: failing("CrashLoopBackOff"), ended: Ended::Before, ..facts(number) }
}

fn waiting_now(breaker: &Breaker) -> u64 {
    let mut waiting = 0;
    breaker.context().ledger.each(|demand| waiting += demand.concurrency());
    waiting
}

#[tokio::test(start_paused = true)]
async fn requests_do_not_keep_a_crash_loop_alive() {
    let breaker = breaker(None, 10);
    let mut callers = Callers::default();
    callers.enter(breaker.admit(&Target::ANY, || 1));
    breaker.woken(REVISION, Ok(()));
    breaker.pod_updated(&facts(1));
    breaker.pod_updated(&exited(1));
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.turned_away), (0, 1));
    // Whatever the kubelet does with it, requests are neither queued nor counted until a probe succeeds.
    for facts in [runs_again(1), exited(1), held_back(1), runs_again(1), held_back(1)] {
        breaker.pod_updated(&facts);
        for _ in 0..5 {
            assert!(["Error", "CrashLoopBackOff"].contains(&&*reason(breaker.admit(&Target::ANY, || 1))));
            assert_eq!(waiting_now(&breaker), 0, "demand that would keep it from scaling to zero");
            assert_eq!(breaker.step(), Step::Done);
            tokio::time::advance(Duration::from_secs(20)).await;
        }
    }
    breaker.pod_updated(&runs_again(1));
    breaker.endpoint_ready(&endpoint(&breaker, 1).unwrap());
    assert!(
        matches!(breaker.admit(&Target::ANY, || 1), Ok(Admission::Granted(_))),
        "a successful probe clears the failure"
    );
}

#[tokio::test(start_paused = true)]
async fn each_failed_wake_extends_the_backoff() {
    let breaker = breaker(None, 10);
    let mut last = Duration::ZERO;
    for number in 1..=8 {
        let began = Instant::now();
        let ticket = loop {
            match breaker.admit(&Target::ANY, || 1) {
                Ok(Admission::Queued(ticket)) => break ticket,
                Err(Rejection::Failing { retry_after, .. }) => tokio::time::advance(retry_after).await,
                other => panic!("{other:?}"),
            }
        };
        let waited = began.elapsed();
        assert!(waited >= last / 4 && waited <= Duration::from_secs(60), "{waited:?} after {last:?}");
        last = waited;
        assert!(matches!(breaker.step(), Step::Wake { .. }));
        breaker.woken(REVISION, Ok(()));
        breaker.pod_updated(&PodFacts { ip: None, failure: failing("InvalidImageName"), ..facts(number) });
        breaker.pod_deleted(REVISION, &number.to_string());
        drop(ticket);
    }
    assert!(last >= Duration::from_secs(30), "the eighth retry is after {last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ends_after_serving_is_waited_for_once() {
    let breaker = breaker(None, 10);
    serve(&breaker, 1);
    let mut callers = Callers::default();
    breaker.pod_updated(&exited(1));
    callers.enter(breaker.admit(&Target::ANY, || 1));
    assert_eq!(callers.waiting.len(), 1, "its container is started again");
    breaker.pod_updated(&runs_again(1));
    breaker.endpoint_ready(&endpoint(&breaker, 1).unwrap());
    callers.collect();
    assert_eq!(callers.inside.len(), 1);
    callers.inside.clear();
    // It ends twice without serving in between.
    breaker.pod_updated(&exited(1));
    callers.enter(breaker.admit(&Target::ANY, || 1));
    breaker.pod_updated(&held_back(1));
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.turned_away), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn requests_are_queued_again_once_the_image_is_pulled() {
    let breaker = breaker(None, 10);
    let ticket = park(&breaker);
    breaker.woken(REVISION, Ok(()));
    let failure = Some(PodFailure { reason: "ErrImagePull".into(), message: "x:1: not found".into() });
    breaker.pod_updated(&PodFacts { ip: None, failure, ..facts(1) });
    breaker.pod_updated(&PodFacts { ip: None, failure: failing("ImagePullBackOff"), ..facts(1) });
    drop(ticket);
    assert_eq!(reason(breaker.admit(&Target::ANY, || 1)), "ErrImagePull", "the reason, and not that the kubelet waits");
    breaker.pod_updated(&PodFacts { ip: None, ..facts(1) });
    drop(park(&breaker));
}

#[tokio::test(start_paused = true)]
async fn an_unschedulable_pod_fails_after_the_grace_period() {
    let breaker = breaker(None, 10);
    let mut callers = Callers::default();
    callers.enter(breaker.admit(&Target::ANY, || 1));
    breaker.woken(REVISION, Ok(()));
    let pending = |message: &str| {
        let failure = Some(PodFailure { reason: "Unschedulable".into(), message: message.into() });
        PodFacts { ip: None, scheduled: false, failure, ..facts(1) }
    };
    let began = Instant::now();
    breaker.pod_updated(&pending("0/1 nodes are available"));
    callers.collect();
    assert_eq!(callers.waiting.len(), 1);
    assert_eq!(callers.waiting[0].blocked_by().unwrap().reason, "Unschedulable", "a timeout reports the known failure");
    // The scheduler's message changes, which does not restart the grace period.
    tokio::time::advance(Duration::from_secs(6)).await;
    breaker.pod_updated(&pending("0/2 nodes are available"));
    callers.enter(breaker.admit(&Target::ANY, || 1));
    loop {
        match breaker.step() {
            Step::Done => break,
            Step::Wait(until) => tokio::time::sleep_until(until).await,
            wake @ Step::Wake { .. } => panic!("{wake:?}"),
        }
    }
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.turned_away), (0, 2));
    assert_eq!(began.elapsed(), breaker.context().bounds.unschedulable_grace);
    assert_eq!(reason(breaker.admit(&Target::ANY, || 1)), "Unschedulable");
    // A node is added.
    breaker.pod_updated(&PodFacts { ip: None, ..facts(1) });
    callers.enter(breaker.admit(&Target::ANY, || 1));
    assert_eq!(callers.waiting.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_scheduled_within_the_grace_period_rejects_nothing() {
    let breaker = breaker(None, 10);
    let mut callers = Callers::default();
    callers.enter(breaker.admit(&Target::ANY, || 1));
    breaker.woken(REVISION, Ok(()));
    breaker.pod_updated(&PodFacts { ip: None, scheduled: false, failure: failing("Unschedulable"), ..facts(1) });
    tokio::time::advance(Duration::from_secs(9)).await;
    breaker.pod_updated(&PodFacts { ip: None, ..facts(1) });
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(matches!(breaker.step(), Step::Wait(_) | Step::Done));
    serve(&breaker, 1);
    callers.collect();
    assert_eq!(callers.inside.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_creation_failure_applies_only_to_a_woken_revision_without_pods() {
    let breaker = breaker(None, 10);
    let refused = failing("PodCreationFailed");
    let mut callers = Callers::default();
    callers.enter(breaker.admit(&Target::ANY, || 1));
    breaker.set_pod_creation_failure(refused.clone());
    callers.collect();
    assert_eq!(callers.waiting.len(), 1, "nothing was woken yet, so this is of another time");
    breaker.woken(REVISION, Ok(()));
    callers.collect();
    assert_eq!(callers.waiting.len(), 1, "the count was zero, so this was of another time");
    breaker.set_pod_creation_failure(refused.clone());
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.turned_away), (0, 1));
    assert_eq!(reason(breaker.admit(&Target::ANY, || 1)), "PodCreationFailed");
    // It is retried. Replica count and condition still stand: the next requests are rejected without another change.
    tokio::time::advance(Duration::from_secs(2)).await;
    callers.enter(breaker.admit(&Target::ANY, || 1));
    assert_eq!(callers.waiting.len(), 1);
    breaker.woken(REVISION, Err(WakeError::Awake));
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.turned_away), (0, 2));
    // Nothing blocks it any more.
    tokio::time::advance(Duration::from_secs(5)).await;
    breaker.set_pod_creation_failure(None);
    callers.enter(breaker.admit(&Target::ANY, || 1));
    breaker.woken(REVISION, Err(WakeError::Awake));
    callers.collect();
    assert_eq!(callers.waiting.len(), 1);
}

/// Failures of nodes and of the network. The kubelet's next attempt usually succeeds.
#[rstest::rstest]
#[case::runtime("RunContainerError", "unable to apply cgroup configuration: unable to freeze")]
#[case::registry("ErrImagePull", "dial tcp 10.0.0.1:443: i/o timeout")]
#[case::kubelet("CreateContainerConfigError", "failed to sync secret cache: timed out waiting for the condition")]
#[tokio::test(start_paused = true)]
async fn a_failure_that_may_pass_rejects_after_the_grace_period(#[case] reason: &str, #[case] message: &str) {
    let failed = |number| {
        let failure = Some(PodFailure { reason: reason.into(), message: message.into() });
        PodFacts { ip: None, failure, ..facts(number) }
    };
    let breaker = breaker(None, 10);
    let mut callers = Callers::default();
    callers.enter(breaker.admit(&Target::ANY, || 1));
    breaker.woken(REVISION, Ok(()));
    breaker.pod_updated(&failed(1));
    callers.enter(breaker.admit(&Target::ANY, || 1));
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.turned_away), (2, 0), "the next attempt may succeed");
    // It does.
    tokio::time::advance(NODE_GRACE / 2).await;
    serve(&breaker, 1);
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.inside.len()), (0, 2));

    // Another pod fails until the grace period ends. What the kubelet reports between two attempts does not restart it.
    callers.inside.clear();
    breaker.pod_deleted(REVISION, "1");
    callers.enter(breaker.admit(&Target::ANY, || 1));
    breaker.woken(REVISION, Ok(()));
    let began = Instant::now();
    breaker.pod_updated(&failed(2));
    tokio::time::advance(NODE_GRACE / 2).await;
    let failure = Some(PodFailure { reason: "ImagePullBackOff".into(), message: "Back-off".into() });
    breaker.pod_updated(&PodFacts { ip: None, failure, ..facts(2) });
    loop {
        match breaker.step() {
            Step::Done => break,
            Step::Wait(until) => tokio::time::sleep_until(until).await,
            wake @ Step::Wake { .. } => panic!("{wake:?}"),
        }
    }
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.turned_away), (0, 1));
    assert_eq!(began.elapsed(), NODE_GRACE);
}

/// A second failure ends the grace period: the kubelet holds the container back.
#[tokio::test(start_paused = true)]
async fn a_second_failure_of_the_runtime_rejects_at_once() {
    let breaker = breaker(None, 10);
    let mut callers = Callers::default();
    callers.enter(breaker.admit(&Target::ANY, || 1));
    breaker.woken(REVISION, Ok(()));
    breaker.pod_updated(&PodFacts { failure: failing("RunContainerError"), ended: Ended::Before, ..facts(1) });
    callers.collect();
    assert_eq!(callers.waiting.len(), 1);
    breaker.pod_updated(&held_back(1));
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.turned_away), (0, 1));
}

#[rstest::rstest]
#[case::image("ErrImagePull", "docker.io/acme/nope:1: not found")]
#[case::command("RunContainerError", "error during container init: exec: \"/nope\": no such file or directory")]
#[case::secret("CreateContainerConfigError", "secret \"keys\" not found")]
#[tokio::test(start_paused = true)]
async fn a_failure_of_the_revision_rejects_at_once(#[case] reason: &str, #[case] message: &str) {
    let breaker = breaker(None, 10);
    let mut callers = Callers::default();
    callers.enter(breaker.admit(&Target::ANY, || 1));
    breaker.woken(REVISION, Ok(()));
    let failure = Some(PodFailure { reason: reason.into(), message: message.into() });
    breaker.pod_updated(&PodFacts { ip: None, failure, ..facts(1) });
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.turned_away), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_function_that_cannot_be_built_rejects_at_once() {
    let (context, policy) = (context(Bounds::generous()), policy(None, 10));
    let namespace = Namespace::new(context.bounds.namespace, context.bounds.namespace_wakes);
    let id = FunctionId { key: FunctionKey::new("ns", "f"), uid: "u".into() };
    let breaker = Breaker::new(id, policy, namespace, context);
    let mut callers = Callers::default();
    callers.enter(breaker.admit(&Target::ANY, || 1));
    assert_eq!(callers.waiting.len(), 1, "the operator may not have seen it yet");
    breaker.set_build_failure(failing("Invalid"));
    callers.collect();
    assert_eq!((callers.waiting.len(), callers.turned_away), (0, 1));
    assert_eq!(reason(breaker.admit(&Target::ANY, || 1)), "Invalid");
    // The spec is fixed.
    breaker.set_build_failure(None);
    callers.enter(breaker.admit(&Target::ANY, || 1));
    assert_eq!(callers.waiting.len(), 1);
    breaker.set_traffic(&shares(&[(REVISION, 100)]));
    serve(&breaker, 1);
    callers.collect();
    assert_eq!(callers.inside.len(), 1);
    breaker.set_build_failure(failing("Invalid"));
    callers.enter(breaker.admit(&Target::ANY, || 1));
    assert_eq!(callers.inside.len(), 2, "a pod serves, whatever is reported of the spec");
}
