//! Pods of the world: creation, scheduling, start and deletion.

use super::{Event, World};
use crate::{
    micros::{MICROS_PER_SECOND, Micros},
    node::Job,
    pods::PodId,
    random::log_normal,
};

impl World<'_> {
    /// Creates or deletes pods to match the wanted count.
    pub(super) fn scale(&mut self, wanted: u32) {
        let Some(node) = &mut self.node else {
            let live = self.pods.live();
            for _ in live..wanted {
                let pod = self.pods.start(self.now);
                let seconds = log_normal(&mut self.starts, self.start, 0.2).clamp(0.05, 120.0);
                self.events.put(self.now + (seconds * MICROS_PER_SECOND) as Micros, Event::Ready(pod));
            }
            if wanted < live {
                self.pods.stop(live - wanted, self.now);
            }
            return;
        };
        let live = self.pods.live() + node.uncreated();
        if node.request(wanted.saturating_sub(live)) {
            self.events.put(self.now, Event::Create);
        }
        let fewer = node.cancel_uncreated(live.saturating_sub(wanted));
        let before = self.pods.scheduled();
        for pod in self.pods.stop(fewer, self.now) {
            node.end_start(self.now, pod);
        }
        self.removed(before);
    }

    /// Creates a batch of pods.
    pub(super) fn create(&mut self) {
        let Some(node) = &mut self.node else { return };
        let (count, next) = node.create(self.now);
        for _ in 0..count {
            node.pending.push_back(self.pods.create(self.now));
        }
        if let Some(next) = next {
            self.events.put(next, Event::Create);
        }
        self.schedule();
    }

    /// Frees the capacity of deleted pods, given the number of scheduled pods before.
    pub(super) fn removed(&mut self, before: u32) {
        if let Some(node) = &mut self.node {
            node.stop(self.now, before - self.pods.scheduled());
            self.schedule();
        }
    }

    /// Schedules unscheduled pods in the order of creation.
    pub(super) fn schedule(&mut self) {
        let Some(node) = &mut self.node else { return };
        while node.fits(self.pods.scheduled())
            && let Some(pod) = node.pending.pop_front()
        {
            if !self.pods.is_starting(pod) {
                continue;
            }
            self.pods.schedule(pod);
            let varies = log_normal(&mut self.starts, 1.0, 0.2);
            let delay = (self.start * varies).clamp(0.05, 1_200.0) * MICROS_PER_SECOND;
            let work = node.spec.start_cpu_s * varies * MICROS_PER_SECOND;
            self.events.put(node.image_ready_at(self.now) + delay as Micros, Event::Delayed(pod, work));
        }
    }

    pub(super) fn ready(&mut self, pod: PodId) {
        // Unless the pod was removed while it started.
        if !self.pods.is_ready(pod, self.now) {
            return;
        }
        self.changed();
        self.assign_queued(true);
    }

    /// Completes a CPU job.
    pub(super) fn cpu(&mut self) {
        let Some(node) = &mut self.node else { return };
        match node.cpu.take(self.now) {
            Some(Job::Start(pod)) => {
                node.end_start(self.now, pod);
                self.ready(pod);
            }
            Some(Job::Stop) => {
                node.complete_deletion();
                self.schedule();
            }
            Some(Job::Request { pod, began, rest }) => self.events.put(self.now + rest, Event::Done(pod, began)),
            None => {}
        }
    }
}
