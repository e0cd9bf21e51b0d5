//! The pods of one function.

use crate::Micros;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Gone,
    Starting,
    Serving,
    /// Gets nothing new and goes when it has nothing left.
    Draining,
}

#[derive(Clone, Debug)]
struct Pod {
    phase: Phase,
    /// Told apart from the one that had the place before.
    id: u64,
    /// Whether it has capacity on a node.
    scheduled: bool,
    created: Micros,
    in_flight: u32,
    /// Since when it has something to do, or nothing.
    since: Micros,
    busy: Micros,
}

/// Names a pod for as long as the simulation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodId {
    place: usize,
    id: u64,
}

impl PodId {
    /// Number of the pod among all that were created.
    pub(crate) fn id(self) -> u64 {
        self.id
    }
}

/// Which pod gets a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pick {
    /// The first that has a slot. That packs them: how long a call takes does not depend on how full its pod is, and
    /// pods that are left over become idle, which every policy is good at seeing.
    #[default]
    First,
    /// The one with the fewest requests.
    Least,
}

/// Which of the starting pods are deleted first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Victims {
    #[default]
    Oldest,
    /// As the ReplicaSet controller does: unscheduled pods before scheduled ones, and then the newest.
    Newest,
}

/// Time that pods took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodTime {
    /// From when a pod was asked for until it was gone.
    pub(crate) all: Micros,
    /// With at least one request.
    pub(crate) busy: Micros,
    /// Pods that were started.
    pub(crate) starts: u64,
}

/// The pods of one function, and the time that they took up to the end of the trace.
#[derive(Debug)]
pub(crate) struct Pods {
    places: Vec<Pod>,
    /// A bit for each place whose pod would take one more request.
    free: Vec<u64>,
    limit: u32,
    end: Micros,
    time: PodTime,
    starting: u32,
    serving: u32,
    /// Those that have capacity on a node: all but the unschedulable.
    scheduled: u32,
    next_id: u64,
    pick: Pick,
    victims: Victims,
}

impl Pods {
    /// None yet. `limit` is what one works on at once; after `end`, time is not counted.
    pub(crate) fn new(limit: u32, end: Micros) -> Self {
        Self {
            places: Vec::new(),
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

    /// Those that serve.
    pub(crate) fn ready(&self) -> u32 {
        self.serving
    }

    /// Those that are still starting.
    pub(crate) fn starting(&self) -> u32 {
        self.starting
    }

    /// Those that serve or will.
    pub(crate) fn live(&self) -> u32 {
        self.starting + self.serving
    }

    /// Since when each of those that serve and have nothing to do has had nothing.
    pub(crate) fn idle_since(&self) -> impl Iterator<Item = Micros> + '_ {
        self.places.iter().filter(|p| p.phase == Phase::Serving && p.in_flight == 0).map(|p| p.since)
    }

    /// Creates a pod that is scheduled at once.
    pub(crate) fn start(&mut self, now: Micros) -> PodId {
        let pod = self.create(now);
        self.schedule(pod);
        pod
    }

    /// Creates a pod that has no capacity yet.
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
        let place = self.places.iter().position(|p| p.phase == Phase::Gone).unwrap_or(self.places.len());
        if place == self.places.len() {
            self.places.push(pod);
            self.free.resize(place / 64 + 1, 0);
        } else {
            self.places[place] = pod;
        }
        self.starting += 1;
        if now < self.end {
            self.time.starts += 1;
        }
        PodId { place, id: self.next_id }
    }

    /// Gives a pod capacity.
    pub(crate) fn schedule(&mut self, pod: PodId) {
        self.places[pod.place].scheduled = true;
        self.scheduled += 1;
    }

    /// Those that have capacity on a node.
    pub(crate) fn scheduled(&self) -> u32 {
        self.scheduled
    }

    /// Whether a pod is starting, and not deleted.
    pub(crate) fn is_starting(&self, pod: PodId) -> bool {
        let place = &self.places[pod.place];
        place.id == pod.id && place.phase == Phase::Starting
    }

    /// Requests in a pod.
    pub(crate) fn in_flight(&self, pod: PodId) -> u32 {
        self.places[pod.place].in_flight
    }

    /// A pod has started. False if it is gone by now.
    pub(crate) fn is_ready(&mut self, pod: PodId, now: Micros) -> bool {
        if !self.is_starting(pod) {
            return false;
        }
        let place = &mut self.places[pod.place];
        place.phase = Phase::Serving;
        place.since = now;
        self.starting -= 1;
        self.serving += 1;
        self.set_free(pod.place, true);
        true
    }

    /// Gives a request to a pod that takes one more.
    pub(crate) fn begin(&mut self, now: Micros) -> Option<PodId> {
        self.begin_after(now, |_| {})
    }

    /// As [`Self::begin`], and tells how long the pod had nothing to do, if it had nothing.
    pub(crate) fn begin_after(&mut self, now: Micros, idle: impl FnOnce(Micros)) -> Option<PodId> {
        let place = match self.pick {
            Pick::First => {
                let (word, bits) = self.free.iter().enumerate().find(|(_, bits)| **bits != 0)?;
                word * 64 + bits.trailing_zeros() as usize
            }
            Pick::Least => {
                let free = |place: &usize| self.free[place / 64] >> (place % 64) & 1 == 1;
                (0..self.places.len()).filter(free).min_by_key(|place| self.places[*place].in_flight)?
            }
        };
        let pod = &mut self.places[place];
        if pod.in_flight == 0 {
            idle(now - pod.since);
            pod.since = now;
        }
        pod.in_flight += 1;
        let full = pod.in_flight >= self.limit;
        let id = pod.id;
        if full {
            self.set_free(place, false);
        }
        Some(PodId { place, id })
    }

    /// A request is done.
    pub(crate) fn finish(&mut self, pod: PodId, now: Micros) {
        let end = self.end;
        let place = &mut self.places[pod.place];
        place.in_flight -= 1;
        if place.in_flight == 0 {
            place.busy += now.min(end).saturating_sub(place.since);
            place.since = now;
        }
        match place.phase {
            Phase::Draining if place.in_flight == 0 => self.remove(pod.place, now),
            Phase::Serving => self.set_free(pod.place, true),
            _ => {}
        }
    }

    /// Takes away so many pods: first those that have not started, then those with the least to do, then those that have
    /// been idle for longest. What is in them is finished first. Returns those that had not started.
    pub(crate) fn stop(&mut self, count: u32, now: Micros) -> Vec<PodId> {
        let mut live: Vec<_> = (0..self.places.len())
            .filter(|place| matches!(self.places[*place].phase, Phase::Starting | Phase::Serving))
            .collect();
        live.sort_by_key(|place| {
            let pod = &self.places[*place];
            let serving = pod.phase == Phase::Serving;
            match self.victims {
                Victims::Newest if !serving => (false, u32::from(pod.scheduled), 0, Micros::MAX - pod.id),
                _ => (serving, pod.in_flight, pod.since, pod.id),
            }
        });
        let mut unstarted = Vec::new();
        for place in live.into_iter().take(count as usize) {
            match self.places[place].phase {
                Phase::Starting => {
                    self.starting -= 1;
                    unstarted.push(PodId { place, id: self.places[place].id });
                }
                _ => self.serving -= 1,
            }
            self.set_free(place, false);
            if self.places[place].in_flight == 0 {
                self.remove(place, now);
            } else {
                self.places[place].phase = Phase::Draining;
            }
        }
        unstarted
    }

    fn remove(&mut self, place: usize, now: Micros) {
        let pod = &mut self.places[place];
        pod.phase = Phase::Gone;
        self.scheduled -= u32::from(pod.scheduled);
        self.time.all += now.min(self.end).saturating_sub(pod.created);
        self.time.busy += pod.busy;
    }

    fn set_free(&mut self, place: usize, free: bool) {
        let bit = 1 << (place % 64);
        if free {
            self.free[place / 64] |= bit;
        } else {
            self.free[place / 64] &= !bit;
        }
    }

    /// The time that all pods took, those among them that are still there.
    pub(crate) fn time(mut self, now: Micros) -> PodTime {
        for place in 0..self.places.len() {
            if self.places[place].phase != Phase::Gone {
                self.remove(place, now);
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
    fn time_is_counted_until_the_end() {
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
    fn the_least_busy_go_first_and_finish_what_they_have() {
        let mut pods = Pods::new(1, 1_000);
        let ids: Vec<_> = (0..4).map(|_| pods.start(0)).collect();
        for id in &ids[..3] {
            assert!(pods.is_ready(*id, 10));
        }
        assert_eq!((pods.begin(20), pods.begin(20)), (Some(ids[0]), Some(ids[1])));
        // The one that has not started, and the one with nothing to do.
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
    fn of_starting_pods_the_unscheduled_and_then_the_newest_are_deleted_first() {
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
    fn a_place_is_used_again_and_the_pod_before_is_not_confused_with_it() {
        let mut pods = Pods::new(1, 1_000);
        let first = pods.start(0);
        pods.stop(1, 5);
        let second = pods.start(6);
        assert!(!pods.is_ready(first, 10));
        assert!(pods.is_ready(second, 11));
        assert_eq!(pods.idle_since().collect::<Vec<_>>(), [11]);
    }
}
