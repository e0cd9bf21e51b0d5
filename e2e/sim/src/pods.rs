//! The pods of one function.

use crate::micros::Micros;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Gone,
    Starting,
    Serving,
    /// Receives no new requests, and is removed when its requests are complete.
    Draining,
}

#[derive(Clone, Debug)]
struct Pod {
    phase: Phase,
    /// Distinguishes the pod from the earlier pod in the same slot.
    id: u64,
    /// Whether it has capacity on a node.
    scheduled: bool,
    created: Micros,
    in_flight: u32,
    /// Since when the pod is busy, or idle.
    since: Micros,
    busy: Micros,
}

/// Identifies a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodId {
    slot: usize,
    id: u64,
}

impl PodId {
    /// Sequence number of the pod.
    pub(crate) fn id(self) -> u64 {
        self.id
    }
}

/// Load balancing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pick {
    /// The first pod with a free slot. Requests are packed: the service time does not depend on the load of a pod, and
    /// surplus pods become idle, which every policy detects.
    #[default]
    First,
    /// The pod with the fewest requests.
    Least,
}

/// Decision in which starting pods are deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Victims {
    #[default]
    Oldest,
    /// As the ReplicaSet controller does: unscheduled pods before scheduled ones, and then the newest.
    Newest,
}

/// Pod time of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodTime {
    /// From the request for a pod until its removal.
    pub(crate) all: Micros,
    /// Time with at least one request.
    pub(crate) busy: Micros,
    /// Number of started pods.
    pub(crate) starts: u64,
}

/// The pods of one function, and their pod time until the end of the trace.
#[derive(Debug)]
pub(crate) struct Pods {
    slots: Vec<Pod>,
    /// One bit per slot whose pod accepts one more request.
    free: Vec<u64>,
    limit: u32,
    end: Micros,
    time: PodTime,
    starting: u32,
    serving: u32,
    /// Scheduled pods.
    scheduled: u32,
    next_id: u64,
    pick: Pick,
    victims: Victims,
}

impl Pods {
    /// Creates an empty set. `limit` is the concurrency limit of a pod; time after `end` is not counted.
    pub(crate) fn new(limit: u32, end: Micros) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            limit: limit.max(1),
            end,
            time: PodTime::default(),
            starting: 0,
            serving: 0,
            scheduled: 0,
            next_id: 0,
            pick: Pick::default(),
            victims: Victims::default(),
        }
    }

    pub(crate) fn with(self, pick: Pick, victims: Victims) -> Self {
        Self { pick, victims, ..self }
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns the number of ready pods.
    pub(crate) fn ready(&self) -> u32 {
        self.serving
    }

    /// Returns the number of starting pods.
    pub(crate) fn starting(&self) -> u32 {
        self.starting
    }

    /// Returns the number of ready and starting pods.
    pub(crate) fn live(&self) -> u32 {
        self.starting + self.serving
    }

    /// Returns since when each idle pod is idle.
    pub(crate) fn idle_since(&self) -> impl Iterator<Item = Micros> + '_ {
        self.slots.iter().filter(|p| p.phase == Phase::Serving && p.in_flight == 0).map(|p| p.since)
    }

    /// Creates a pod that is scheduled at once.
    pub(crate) fn start(&mut self, now: Micros) -> PodId {
        let pod = self.create(now);
        self.schedule(pod);
        pod
    }

    /// Creates an unscheduled pod.
    pub(crate) fn create(&mut self, now: Micros) -> PodId {
        self.next_id += 1;
        let pod = Pod {
            phase: Phase::Starting,
            id: self.next_id,
            scheduled: false,
            created: now,
            in_flight: 0,
            since: now,
            busy: 0,
        };
        let slot = self.slots.iter().position(|p| p.phase == Phase::Gone).unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(pod);
            self.free.resize(slot / 64 + 1, 0);
        } else {
            self.slots[slot] = pod;
        }
        self.starting += 1;
        if now < self.end {
            self.time.starts += 1;
        }
        PodId { slot, id: self.next_id }
    }

    /// Schedules a pod.
    pub(crate) fn schedule(&mut self, pod: PodId) {
        self.slots[pod.slot].scheduled = true;
        self.scheduled += 1;
    }

    /// Returns the number of scheduled pods.
    pub(crate) fn scheduled(&self) -> u32 {
        self.scheduled
    }

    /// Returns whether a pod is starting and not deleted.
    pub(crate) fn is_starting(&self, pod: PodId) -> bool {
        let slot = &self.slots[pod.slot];
        slot.id == pod.id && slot.phase == Phase::Starting
    }

    /// Returns the number of requests in a pod.
    pub(crate) fn in_flight(&self, pod: PodId) -> u32 {
        self.slots[pod.slot].in_flight
    }

    /// Marks a pod as ready. Returns false if the pod was removed.
    pub(crate) fn is_ready(&mut self, pod: PodId, now: Micros) -> bool {
        if !self.is_starting(pod) {
            return false;
        }
        let slot = &mut self.slots[pod.slot];
        slot.phase = Phase::Serving;
        slot.since = now;
        self.starting -= 1;
        self.serving += 1;
        self.set_free(pod.slot, true);
        true
    }

    /// Assigns a request to a pod with a free slot.
    pub(crate) fn begin(&mut self, now: Micros) -> Option<PodId> {
        self.begin_after(now, |_| {})
    }

    /// As [`Self::begin`], and returns how long the pod was idle, if it was.
    pub(crate) fn begin_after(&mut self, now: Micros, idle: impl FnOnce(Micros)) -> Option<PodId> {
        let slot = match self.pick {
            Pick::First => {
                let (word, bits) = self.free.iter().enumerate().find(|(_, bits)| **bits != 0)?;
                word * 64 + bits.trailing_zeros() as usize
            }
            Pick::Least => {
                let free = |slot: &usize| self.free[slot / 64] >> (slot % 64) & 1 == 1;
                (0..self.slots.len()).filter(free).min_by_key(|slot| self.slots[*slot].in_flight)?
            }
        };
        let pod = &mut self.slots[slot];
        if pod.in_flight == 0 {
            idle(now - pod.since);
            pod.since = now;
        }
        pod.in_flight += 1;
        let full = pod.in_flight >= self.limit;
        let id = pod.id;
        if full {
            self.set_free(slot, false);
        }
        Some(PodId { slot, id })
    }

    /// Completes a request.
    pub(crate) fn finish(&mut self, pod: PodId, now: Micros) {
        let end = self.end;
        let slot = &mut self.slots[pod.slot];
        slot.in_flight -= 1;
        if slot.in_flight == 0 {
            slot.busy += now.min(end).saturating_sub(slot.since);
            slot.since = now;
        }
        match slot.phase {
            Phase::Draining if slot.in_flight == 0 => self.remove(pod.slot, now),
            Phase::Serving => self.set_free(pod.slot, true),
            _ => {}
        }
    }

    /// Removes pods: first those that have not started, then those with the fewest requests, then those that have been idle
    /// for longest. Their requests complete first. Returns the pods that had not started.
    pub(crate) fn stop(&mut self, count: u32, now: Micros) -> Vec<PodId> {
        let mut live: Vec<_> = (0..self.slots.len())
            .filter(|slot| matches!(self.slots[*slot].phase, Phase::Starting | Phase::Serving))
            .collect();
        live.sort_by_key(|slot| {
            let pod = &self.slots[*slot];
            let serving = pod.phase == Phase::Serving;
            match self.victims {
                Victims::Newest if !serving => (false, u32::from(pod.scheduled), 0, Micros::MAX - pod.id),
                _ => (serving, pod.in_flight, pod.since, pod.id),
            }
        });
        let mut unstarted = Vec::new();
        for slot in live.into_iter().take(count as usize) {
            match self.slots[slot].phase {
                Phase::Starting => {
                    self.starting -= 1;
                    unstarted.push(PodId { slot, id: self.slots[slot].id });
                }
                _ => self.serving -= 1,
            }
            self.set_free(slot, false);
            if self.slots[slot].in_flight == 0 {
                self.remove(slot, now);
            } else {
                self.slots[slot].phase = Phase::Draining;
            }
        }
        unstarted
    }

    fn remove(&mut self, slot: usize, now: Micros) {
        let pod = &mut self.slots[slot];
        pod.phase = Phase::Gone;
        self.scheduled -= u32::from(pod.scheduled);
        self.time.all += now.min(self.end).saturating_sub(pod.created);
        self.time.busy += pod.busy;
    }

    fn set_free(&mut self, slot: usize, free: bool) {
        let bit = 1 << (slot % 64);
        if free {
            self.free[slot / 64] |= bit;
        } else {
            self.free[slot / 64] &= !bit;
        }
    }

    /// Returns the time of all pods, including the present ones.
    pub(crate) fn time(mut self, now: Micros) -> PodTime {
        for slot in 0..self.slots.len() {
            if self.slots[slot].phase != Phase::Gone {
                self.remove(slot, now);
            }
        }
        self.time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_takes_no_more_than_its_limit() {
        let mut pods = Pods::new(2, 1_000);
        let first = pods.start(0);
        assert_eq!(pods.begin(0), None);
        assert!(pods.is_ready(first, 10));
        assert_eq!((pods.begin(20), pods.begin(20), pods.begin(20)), (Some(first), Some(first), None));
        pods.finish(first, 30);
        assert_eq!(pods.begin(40), Some(first));
    }

    #[test]
    fn pod_time_is_counted_until_the_end() {
        let mut pods = Pods::new(1, 1_000);
        let pod = pods.start(100);
        assert!(pods.is_ready(pod, 200));
        pods.begin(300);
        pods.finish(pod, 450);
        pods.begin(900);
        pods.finish(pod, 1_500);
        assert_eq!(pods.time(2_000), PodTime { all: 900, busy: 150 + 100, starts: 1 });
    }

    #[test]
    fn the_least_busy_pods_are_removed_first_and_complete_their_requests() {
        let mut pods = Pods::new(1, 1_000);
        let ids: Vec<_> = (0..4).map(|_| pods.start(0)).collect();
        for id in &ids[..3] {
            assert!(pods.is_ready(*id, 10));
        }
        assert_eq!((pods.begin(20), pods.begin(20)), (Some(ids[0]), Some(ids[1])));
        // The pod that has not started, and the idle pod.
        pods.stop(2, 30);
        assert_eq!((pods.live(), pods.ready(), pods.starting()), (2, 2, 0));
        assert!(!pods.is_ready(ids[3], 40));
        pods.stop(2, 50);
        assert_eq!(pods.begin(60), None);
        pods.finish(ids[0], 100);
        pods.finish(ids[1], 200);
        assert_eq!(pods.time(1_000), PodTime { all: 30 + 30 + 100 + 200, busy: 80 + 180, starts: 4 });
    }

    #[test]
    fn unscheduled_and_then_newest_starting_pods_are_deleted_first() {
        let mut pods = Pods::new(1, 1_000).with(Pick::First, Victims::Newest);
        let ids: Vec<_> = (0..3).map(|_| pods.start(0)).collect();
        let unscheduled = pods.create(0);
        assert!(pods.is_ready(ids[0], 10));
        assert_eq!((pods.stop(1, 20), pods.scheduled()), (vec![unscheduled], 3));
        assert_eq!((pods.stop(1, 20), pods.scheduled()), (vec![ids[2]], 2));
        assert!(pods.is_starting(ids[1]) && !pods.is_starting(ids[2]));
    }

    #[test]
    fn the_least_loaded_pod_gets_the_next_request() {
        let mut pods = Pods::new(3, 1_000).with(Pick::Least, Victims::Oldest);
        let ids = [pods.start(0), pods.start(0)];
        assert!(ids.iter().all(|id| pods.is_ready(*id, 0)));
        let given: Vec<_> = (0..7).map(|_| pods.begin(1)).collect();
        assert_eq!(given[..4], [Some(ids[0]), Some(ids[1]), Some(ids[0]), Some(ids[1])]);
        assert_eq!((given[6], pods.in_flight(ids[0]), pods.in_flight(ids[1])), (None, 3, 3));
    }

    #[test]
    fn a_slot_is_reused_and_pods_in_it_are_distinguished() {
        let mut pods = Pods::new(1, 1_000);
        let first = pods.start(0);
        pods.stop(1, 5);
        let second = pods.start(6);
        assert!(!pods.is_ready(first, 10));
        assert!(pods.is_ready(second, 11));
        assert_eq!(pods.idle_since().collect::<Vec<_>>(), [11]);
    }
}
