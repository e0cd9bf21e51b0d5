//! Who may say that a pod takes requests: a probe, or only the kubelet.

use super::*;
use rouse_crds::pod::ReadinessCheck;

fn is_granted(breaker: &Arc<Breaker>) -> bool {
    matches!(breaker.admit(&Target::ANY, || 1), Ok(Admission::Granted(_)))
}

fn is_probed(breaker: &Breaker, number: u16) -> bool {
    let inner = breaker.lock();
    let mut trackers = inner.revisions.iter().flat_map(|r| &r.trackers);
    trackers.find(|t| *t.id == *number.to_string()).unwrap().probe.is_some()
}

/// A probe succeeds.
fn probed(breaker: &Arc<Breaker>, number: u16) {
    breaker.endpoint_ready(&endpoint(breaker, number).unwrap());
}

#[tokio::test]
async fn a_pod_that_became_unready_is_not_probed_until_a_container_has_ended() {
    let breaker = breaker(None, 10);
    let ready = PodFacts { ready: true, ..facts(1) };
    let restarted = PodFacts { restarts: 1, ..facts(1) };
    let ended = PodFacts { ended: Ended::Now, failure: failing("Error"), ..facts(1) };
    for again in [restarted, ended] {
        breaker.pod_updated(&ready);
        assert!(is_granted(&breaker) && !is_probed(&breaker, 1));
        for _ in 0..2 {
            breaker.pod_updated(&facts(1));
            probed(&breaker, 1);
            assert!(!is_granted(&breaker) && !is_probed(&breaker, 1), "a probe that was on its way changes nothing");
        }
        breaker.pod_updated(&again);
        assert!(is_probed(&breaker, 1));
        breaker.pod_updated(&PodFacts { ready: false, failure: None, ended: Ended::Never, ..again });
        probed(&breaker, 1);
        assert!(is_granted(&breaker));
    }
}

#[tokio::test]
async fn what_an_activator_cannot_check_is_left_to_the_kubelet() {
    let breaker = breaker(None, 10);
    let starting = PodFacts { readiness: Some(ReadinessCheck::Kubelet), ..facts(1) };
    breaker.pod_updated(&starting);
    probed(&breaker, 1);
    assert!(!is_granted(&breaker) && !is_probed(&breaker, 1));
    breaker.pod_updated(&PodFacts { ready: true, ..starting.clone() });
    let Ok(Admission::Granted(permit)) = breaker.admit(&Target::ANY, || 1) else {
        panic!("the kubelet reports it ready")
    };
    // The kubelet still does after a failed connect, so a connection will be enough.
    permit.connect_failed();
    assert!(!is_granted(&breaker) && is_probed(&breaker, 1));
    breaker.pod_updated(&PodFacts { restarts: 1, ..starting.clone() });
    assert!(!is_probed(&breaker, 1), "the new process may not be ready");
    breaker.pod_updated(&PodFacts { ready: true, restarts: 1, ..starting });
    assert!(is_granted(&breaker));
}

#[tokio::test]
async fn a_pod_without_its_address_keeps_its_requests() {
    let breaker = breaker(Some(1), 10);
    serve(&breaker, 1);
    let Ok(Admission::Granted(permit)) = breaker.admit(&Target::ANY, || 1) else { panic!("it serves") };
    breaker.pod_updated(&PodFacts { ip: None, ..facts(1) });
    assert!(!is_granted(&breaker) && !is_probed(&breaker, 1));
    breaker.pod_updated(&facts(1));
    probed(&breaker, 1);
    assert!(!is_granted(&breaker), "a request is in the pod, and one is its limit");
    drop(permit);
    assert!(is_granted(&breaker));
}
