//! The pods of a revision, as far as its account tells of them.
//!
//! A request counts itself at the [`Endpoint`] it goes to, and that is read when somebody wants to know.

use std::sync::{Arc, Weak};

use rouse_crds::demand::PodDemand;

use crate::endpoints::Endpoint;

/// The pods of a revision. Bounded by what the cluster runs and what is still in pods that are gone.
#[derive(Debug, Default)]
pub(super) struct Pods(Vec<Known>);

#[derive(Debug)]
struct Known {
    /// Name and uid.
    id: Box<str>,
    /// By its present address and, while requests are there, by former ones.
    endpoints: Vec<Weak<Endpoint>>,
    draining: bool,
    gone: bool,
}

impl Pods {
    /// A pod is there or has changed. Tells whether that changes what is told.
    ///
    /// Called with the gate locked, as every request enters its endpoint: whoever reads here that a pod gets nothing new reads
    /// all that has entered it.
    pub(super) fn see(&mut self, id: &str, endpoint: Option<&Arc<Endpoint>>, draining: bool) -> bool {
        let index = self.0.iter().position(|known| *known.id == *id).unwrap_or_else(|| {
            self.0.push(Known { id: id.into(), endpoints: vec![], draining: false, gone: false });
            self.0.len() - 1
        });
        let known = &mut self.0[index];
        known.gone = false;
        if let Some(endpoint) = endpoint
            && !known.endpoints.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(endpoint)))
        {
            known.endpoints.retain(|former| former.strong_count() > 0);
            known.endpoints.push(Arc::downgrade(endpoint));
        }
        std::mem::replace(&mut known.draining, draining) != draining
    }

    /// A pod is gone. What is in it is told until it ends. Tells whether that changes what is told.
    pub(super) fn part(&mut self, id: &str) -> bool {
        let Some(known) = self.0.iter_mut().find(|known| *known.id == *id) else { return false };
        known.gone = true;
        let told = known.draining || known.in_flight() > 0;
        known.draining = true;
        self.forget();
        told
    }

    /// All of them are gone.
    pub(super) fn part_all(&mut self) {
        for known in &mut self.0 {
            (known.gone, known.draining) = (true, true);
        }
        self.forget();
    }

    /// Those that have requests and those that get nothing new.
    pub(super) fn tell(&mut self) -> Vec<PodDemand> {
        self.forget();
        let tell = |known: &Known| {
            let in_flight = known.in_flight();
            let pod = || known.id.split('/').next().unwrap_or_default().to_owned();
            (known.draining || in_flight > 0).then(|| PodDemand { pod: pod(), in_flight, draining: known.draining })
        };
        self.0.iter().filter_map(tell).collect()
    }

    fn forget(&mut self) {
        self.0.retain(|known| !known.gone || known.in_flight() > 0);
    }
}

impl Known {
    fn in_flight(&self) -> u64 {
        self.endpoints.iter().filter_map(Weak::upgrade).map(|endpoint| u64::from(endpoint.in_flight())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::function::Protocol;

    fn endpoint(port: u16) -> Arc<Endpoint> {
        Arc::new(Endpoint::new(([127, 0, 0, 1], port).into(), Protocol::Http1, None))
    }

    fn told(pods: &mut Pods) -> Vec<(String, u64, bool)> {
        pods.tell().into_iter().map(|pod| (pod.pod, pod.in_flight, pod.draining)).collect()
    }

    #[test]
    fn those_with_requests_and_those_that_go_are_told() {
        let (mut pods, a, b) = (Pods::default(), endpoint(1), endpoint(2));
        assert!(!pods.see("a/1", Some(&a), false) && !pods.see("b/2", Some(&b), false));
        assert_eq!(told(&mut pods), []);
        a.enter();
        assert_eq!(told(&mut pods), [("a".into(), 1, false)]);
        assert!(pods.see("b/2", Some(&b), true), "that is news");
        assert!(!pods.see("b/2", Some(&b), true), "and is so once");
        assert_eq!(told(&mut pods), [("a".into(), 1, false), ("b".into(), 0, true)]);
        assert!(pods.see("b/2", Some(&b), false), "spared after all");
        a.leave();
        assert_eq!(told(&mut pods), []);
        assert!(pods.see("c/3", None, true), "one that never had an address");
        assert!(pods.part("c/3") && !pods.part("c/3") && !pods.part("a/1"));
        assert_eq!(told(&mut pods), []);
    }

    #[test]
    fn what_is_in_a_pod_is_told_until_it_ends_whatever_becomes_of_the_pod() {
        let (mut pods, former, now) = (Pods::default(), endpoint(1), endpoint(2));
        pods.see("a/1", Some(&former), false);
        former.enter();
        pods.see("a/1", Some(&now), false);
        now.enter();
        assert_eq!(told(&mut pods), [("a".into(), 2, false)], "it has another address");
        assert!(pods.part("a/1"));
        assert_eq!(told(&mut pods), [("a".into(), 2, true)]);
        now.leave();
        former.leave();
        assert_eq!(told(&mut pods), []);
        assert!(pods.0.is_empty());
    }
}
