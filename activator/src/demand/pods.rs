//! Pods of a revision, as reported in demand frames.
//!
//! Requests in flight are counted at their [`Endpoint`], and read when a frame is made.

use std::sync::{Arc, Weak};

use rouse_crds::demand::PodDemand;

use crate::endpoints::Endpoint;

/// Pods of a revision. Bounded by what the cluster runs, plus deleted pods that still have requests.
#[derive(Debug, Default)]
pub(super) struct Pods(Vec<TrackedPod>);

#[derive(Debug)]
struct TrackedPod {
    /// Name and uid.
    id: Box<str>,
    /// Its current endpoint and, while they have requests, previous ones.
    endpoints: Vec<Weak<Endpoint>>,
    draining: bool,
    gone: bool,
}

impl Pods {
    /// Handles a pod that was created or has changed. Returns whether the report changes.
    ///
    /// Called with the breaker locked, as is every start of a request: a reader that sees a pod as draining sees all
    /// requests that were sent to it.
    pub(super) fn see(&mut self, id: &str, endpoint: Option<&Arc<Endpoint>>, draining: bool) -> bool {
        let index = self.0.iter().position(|tracked| *tracked.id == *id).unwrap_or_else(|| {
            self.0.push(TrackedPod { id: id.into(), endpoints: vec![], draining: false, gone: false });
            self.0.len() - 1
        });
        let tracked = &mut self.0[index];
        tracked.gone = false;
        if let Some(endpoint) = endpoint
            && !tracked.endpoints.iter().any(|tracked| std::ptr::eq(tracked.as_ptr(), Arc::as_ptr(endpoint)))
        {
            tracked.endpoints.retain(|previous| previous.strong_count() > 0);
            tracked.endpoints.push(Arc::downgrade(endpoint));
        }
        std::mem::replace(&mut tracked.draining, draining) != draining
    }

    /// Handles a pod that was deleted. Its requests are reported until they end. Returns whether the report changes.
    pub(super) fn remove(&mut self, id: &str) -> bool {
        let Some(tracked) = self.0.iter_mut().find(|tracked| *tracked.id == *id) else { return false };
        tracked.gone = true;
        let told = tracked.draining || tracked.in_flight() > 0;
        tracked.draining = true;
        self.forget();
        told
    }

    /// Handles the deletion of all pods.
    pub(super) fn remove_all(&mut self) {
        for tracked in &mut self.0 {
            (tracked.gone, tracked.draining) = (true, true);
        }
        self.forget();
    }

    /// Returns the pods that have requests or are draining.
    pub(super) fn tell(&mut self) -> Vec<PodDemand> {
        self.forget();
        let tell = |tracked: &TrackedPod| {
            let in_flight = tracked.in_flight();
            let pod = || tracked.id.split('/').next().unwrap_or_default().to_owned();
            (tracked.draining || in_flight > 0).then(|| PodDemand { pod: pod(), in_flight, draining: tracked.draining })
        };
        self.0.iter().filter_map(tell).collect()
    }

    fn forget(&mut self) {
        self.0.retain(|tracked| !tracked.gone || tracked.in_flight() > 0);
    }
}

impl TrackedPod {
    fn in_flight(&self) -> u64 {
        self.endpoints.iter().filter_map(Weak::upgrade).map(|endpoint| u64::from(endpoint.in_flight())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::{function::Protocol, pod::ReadinessCheck};

    fn endpoint(port: u16) -> Arc<Endpoint> {
        Arc::new(Endpoint::new(([127, 0, 0, 1], port).into(), Protocol::Http1, ReadinessCheck::Tcp))
    }

    fn told(pods: &mut Pods) -> Vec<(String, u64, bool)> {
        pods.tell().into_iter().map(|pod| (pod.pod, pod.in_flight, pod.draining)).collect()
    }

    #[test]
    fn pods_with_requests_and_draining_pods_are_reported() {
        let (mut pods, a, b) = (Pods::default(), endpoint(1), endpoint(2));
        assert!(!pods.see("a/1", Some(&a), false) && !pods.see("b/2", Some(&b), false));
        assert_eq!(told(&mut pods), []);
        a.start_request();
        assert_eq!(told(&mut pods), [("a".into(), 1, false)]);
        assert!(pods.see("b/2", Some(&b), true), "that is news");
        assert!(!pods.see("b/2", Some(&b), true), "and is so once");
        assert_eq!(told(&mut pods), [("a".into(), 1, false), ("b".into(), 0, true)]);
        assert!(pods.see("b/2", Some(&b), false), "spared after all");
        a.end_request();
        assert_eq!(told(&mut pods), []);
        assert!(pods.see("c/3", None, true), "one that never had an address");
        assert!(pods.remove("c/3") && !pods.remove("c/3") && !pods.remove("a/1"));
        assert_eq!(told(&mut pods), []);
    }

    #[test]
    fn requests_are_reported_until_they_end_even_if_the_pod_is_deleted() {
        let (mut pods, previous, now) = (Pods::default(), endpoint(1), endpoint(2));
        pods.see("a/1", Some(&previous), false);
        previous.start_request();
        pods.see("a/1", Some(&now), false);
        now.start_request();
        assert_eq!(told(&mut pods), [("a".into(), 2, false)], "it has another address");
        assert!(pods.remove("a/1"));
        assert_eq!(told(&mut pods), [("a".into(), 2, true)]);
        now.end_request();
        previous.end_request();
        assert_eq!(told(&mut pods), []);
        assert!(pods.0.is_empty());
    }
}
