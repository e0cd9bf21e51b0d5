//! Requests of the world: queueing, assignment to pods, and retries.

use super::{Event, FAST_FAILURE, Queued, World};
use crate::{
    clients::{Clients, Request},
    micros::Micros,
    node::Job,
    pods::PodId,
    request::Arrival,
    scaler::Trigger,
};

impl World<'_> {
    pub(super) fn request(&mut self, request: Request) {
        self.arrivals += 1;
        self.trail.requests += u64::from(request.tries == 0);
        self.changed();
        // FIFO: a request is assigned at once only if the queue is empty.
        if self.waiting.is_empty()
            && let Some(pod) = self.pods.begin(self.now)
        {
            self.begin(request, pod, false);
            return;
        }
        self.waiting.push_back(Queued { request, without_pod: self.pods.ready() == 0 });
        if self.desired == 0 {
            let decision = self.with_view(|scaler, view| scaler.wake(view));
            self.apply(decision);
        } else if self.scaler.trigger() == Trigger::Queued {
            self.decide();
        }
    }

    /// Returns when the next client gives up. The queue is in the order of tries, and all have the same timeout.
    pub(super) fn leave_at(&self) -> Option<Micros> {
        let Clients::Patient { timeout, .. } = self.setup.clients else { return None };
        self.waiting.front().map(|first| first.request.at + timeout)
    }

    pub(super) fn leave(&mut self) {
        let Some(Queued { request, .. }) = self.waiting.pop_front() else { return };
        self.abandoned += 1;
        self.trail.abandoned += 1;
        self.changed();
        if let Some(again) = self.setup.clients.retry(&request, self.now) {
            self.events.put(again.at, Event::Send(again));
        } else {
            self.trail.failed += 1;
            self.trail.unserved += 1;
            self.trail.waited(self.now - request.first);
        }
    }

    /// Sends a request of a closed-loop client.
    pub(super) fn send(&mut self) {
        if let Clients::Closed { service, .. } = self.setup.clients {
            self.request(Request::first(Arrival { at: self.now, service }));
        }
    }

    pub(super) fn done(&mut self, pod: PodId, began: Micros) {
        self.in_flight -= 1;
        self.completions += 1;
        self.served_us += self.now - began;
        let before = self.pods.scheduled();
        self.pods.finish(pod, self.now);
        self.removed(before);
        self.changed();
        self.assign_queued(false);
        if self.sending > self.clients {
            self.sending -= 1;
        } else if self.sending > 0 {
            self.send();
        }
    }

    /// Assigns queued requests to pods. A request is cold if it arrived without a pod or gets a `new` one.
    pub(super) fn assign_queued(&mut self, new: bool) {
        while !self.waiting.is_empty() {
            let Some(pod) = self.pods.begin(self.now) else { return };
            if let Some(Queued { request, without_pod }) = self.waiting.pop_front() {
                self.begin(request, pod, new || without_pod);
            }
        }
    }

    pub(super) fn begin(&mut self, request: Request, pod: PodId, cold: bool) {
        self.in_flight += 1;
        let waited = self.now - request.first;
        self.samples.record(waited, request.service, cold);
        self.trail.unserved += 1;
        if self.setup.scenario {
            self.trail.waited(waited);
        }
        let mut service = Micros::from(request.service);
        if self.setup.fails_above.is_some_and(|most| self.pods.in_flight(pod) > most) {
            self.trail.failed += 1;
            service = FAST_FAILURE;
        }
        match &mut self.node {
            Some(node) if node.spec.request_cpu > 0.0 => {
                let work = (service as f64 * node.spec.request_cpu).min(service as f64);
                let rest = service - work as Micros;
                node.cpu.run(self.now, work, Job::Request { pod, began: self.now, rest });
            }
            _ => self.events.put(self.now + service, Event::Done(pod, self.now)),
        }
    }
}
