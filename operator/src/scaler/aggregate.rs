//! Demand per revision, summed over all activators. Pure: time is a [`Duration`] since any fixed origin.
//!
//! Only demand while a stream is connected counts. What a process counted before its first frame, or between two frames that
//! are too far apart, is excluded; see [`sample`].
//!
//! A missing activator is never read as zero. An unreachable one keeps its last known requests, and they keep adding to the
//! integral of requests over time, until its endpoint is removed. Counters never decrease: the counts of an activator that
//! was removed or restarted are retained.

mod sample;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use rouse_autoscaler::Demand;
use rouse_crds::demand::{Frame, HEARTBEAT, PodDemand, RevisionDemand};

use crate::cluster::key::FunctionKey;
pub use sample::PodReport;
use sample::{Counters, Sample};

/// An activator's pod, as listed in the EndpointSlices.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// Address of its admin port.
    pub address: SocketAddr,
    /// `uid` of the pod, since addresses are reused.
    pub pod: Option<String>,
}

/// A revision of a Function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    function: FunctionKey,
    revision: String,
}

impl Key {
    fn of(demand: &RevisionDemand) -> Self {
        Self { function: FunctionKey::new(&demand.namespace, &demand.function), revision: demand.revision.clone() }
    }
}

/// Last report of one activator about one revision, for `/debug/functions`.
#[derive(Clone, Debug)]
pub struct ActivatorDemand {
    /// The activator.
    pub source: Source,
    /// Age of the report.
    pub age: Duration,
    /// Requests in pods.
    pub in_flight: u64,
    /// Queued requests.
    pub queued: u64,
    /// Queued requests whose wake the activator's rate limits do not allow yet.
    pub held: u64,
    /// Requests since the start of its process.
    pub arrivals: u64,
    /// Requests in each pod.
    pub pods: Vec<PodDemand>,
}

/// State of one activator, for `/debug/functions`.
#[derive(Clone, Debug)]
pub struct ActivatorStatus {
    /// The activator.
    pub source: Source,
    /// Identity of its process, after the first frame.
    pub process: Option<String>,
    /// Whether a current frame of it is required for a scale-down.
    pub required: bool,
    /// Time since its last frame.
    pub age: Option<Duration>,
    /// Number of revisions that it reported.
    pub revisions: usize,
}

/// Most revisions per activator; further ones are ignored. Enough for 10,000 Functions with all retained revisions.
const MAX_REVISIONS: usize = 100_000;

/// Age up to which a frame is current: [`HEARTBEAT`] and one second for the transfer.
pub(super) const MAX_FRAME_AGE: Duration = HEARTBEAT.saturating_add(Duration::from_secs(1));

/// State of one activator. Bounded by the revisions that received a request through it, and by [`MAX_REVISIONS`].
#[derive(Debug, Default)]
struct SourceState {
    /// Whether a current frame is required for a scale-down.
    required: bool,
    /// Identity of its process, after the first frame.
    process: Option<String>,
    /// Time of the last frame.
    last_frame: Option<Duration>,
    /// How far the local clock is ahead of the clock of the process, and the time of the estimate.
    clock_offset: Option<(Duration, Duration)>,
    samples: HashMap<Key, Sample>,
    /// The report of which parts are missing.
    open: Option<OpenReport>,
    /// Number of the last first report: one per connection.
    report: u64,
    /// Whether revisions were ignored because of [`MAX_REVISIONS`], which was logged.
    truncated: bool,
}

/// A report that arrives in parts.
#[derive(Clone, Copy, Debug)]
struct OpenReport {
    /// Sequence of the next part.
    next: u64,
    /// Whether it is the first one of a connection, and no part of it is missing.
    whole: bool,
    /// Whether it came without a pause after the last frame before it. Its parts follow one another at once, and what is in
    /// the second is no newer than what is in the first.
    continuous: bool,
}

impl SourceState {
    /// Notes a frame that arrived at `now`, and returns the report that it is a part of.
    fn part_of(&mut self, sequence: u64, now: Duration) -> OpenReport {
        let before = self.last_frame.replace(now);
        let continuous = before.is_some_and(|before| now.saturating_sub(before) <= MAX_FRAME_AGE);
        let mut report = match self.open {
            Some(open) if sequence > 0 => open,
            _ => OpenReport { next: 0, whole: true, continuous },
        };
        if sequence == 0 {
            self.report += 1;
        }
        report.whole &= sequence == report.next;
        report.next = sequence.saturating_add(1);
        report
    }

    /// Returns the local time at which a frame was written that carries the time `written` and arrived at `now`.
    ///
    /// The transfer times of frames differ. If the difference counted as time in which requests ran, one steady request
    /// would look like slightly more than one, and an extra pod would be wanted. So the shortest transfer time applies to
    /// all frames. Since clocks drift, the estimate is relaxed by a thousandth of the elapsed time.
    fn local_time(&mut self, written: Duration, now: Duration) -> Duration {
        let offset = now.saturating_sub(written);
        let offset = match self.clock_offset {
            Some((before, at)) => offset.min(before + now.saturating_sub(at) / 1000),
            None => offset,
        };
        self.clock_offset = Some((offset, now));
        (written + offset).min(now)
    }
}

/// Counters that outlive the process that counted them.
#[derive(Clone, Copy, Debug, Default)]
struct Retained {
    /// Counts of processes that ended.
    counters: Counters,
    /// Highest values that [`Aggregate::demand`] returned. Only the integrals are used.
    returned: Counters,
}

/// Demand of all revisions.
#[derive(Debug, Default)]
pub struct Aggregate {
    sources: HashMap<Source, SourceState>,
    retained: HashMap<Key, Retained>,
}

impl Aggregate {
    /// Replaces the set of activators. The value is `true` for those that may have requests: a current frame of them is
    /// required for a scale-down. Returns the Functions whose demand changed.
    pub fn set_sources(&mut self, sources: &HashMap<Source, bool>, now: Duration) -> Vec<FunctionKey> {
        let mut changed = Vec::new();
        let removed: Vec<_> = self.sources.keys().filter(|source| !sources.contains_key(source)).cloned().collect();
        for source in removed {
            if let Some(state) = self.sources.remove(&source) {
                changed.extend(state.samples.keys().map(|key| key.function.clone()));
                self.retain_counters(state, now);
            }
        }
        for (source, required) in sources {
            self.sources.entry(source.clone()).or_default().required = *required;
        }
        changed
    }

    /// Returns whether the demand is complete: there is an activator, and every one that may have requests has sent a
    /// current report, all of whose parts were read completely. Otherwise a low demand may be missing data.
    pub fn complete(&self, now: Duration) -> bool {
        let current = |state: &SourceState| {
            let recent = state.last_frame.is_some_and(|at| now.saturating_sub(at) <= MAX_FRAME_AGE);
            recent && !state.truncated && state.open.is_none()
        };
        !self.sources.is_empty() && self.sources.values().all(|state| !state.required || current(state))
    }

    /// Applies a frame of `source` that arrived at `now`. Returns the Functions whose demand it changes.
    pub fn apply_frame(&mut self, source: &Source, frame: Frame, now: Duration) -> Vec<FunctionKey> {
        let Some(state) = self.sources.get_mut(source) else {
            // The activator was removed while its last frame was in transit.
            return Vec::new();
        };
        let mut changed = Vec::new();
        if state.process.as_ref() != Some(&frame.process) {
            let restarted =
                SourceState { required: state.required, process: Some(frame.process), ..SourceState::default() };
            let former = std::mem::replace(state, restarted);
            changed.extend(former.samples.keys().map(|key| key.function.clone()));
            self.retain_counters(former, now);
        }
        let Some(state) = self.sources.get_mut(source) else { return changed };
        let report = state.part_of(frame.sequence, now);
        state.open = Some(report);
        let OpenReport { whole, continuous, .. } = report;
        let at = state.local_time(Duration::from_micros(frame.at_us), now);
        let mut ignored = 0usize;
        for revision in frame.revisions {
            let key = Key::of(&revision);
            if state.samples.len() >= MAX_REVISIONS && !state.samples.contains_key(&key) {
                ignored += 1;
                continue;
            }
            changed.push(key.function.clone());
            let former = state.samples.get(&key);
            let past = match former {
                Some(former) if former.is_restarted_by(&revision) => Some(former.counted()),
                // The extrapolated counts of a pause stay, and the counters continue from there. Counts above the real ones would
                // stand still until the real ones catch up, and a load would look like none.
                Some(former) if !continuous => Some(former.counted_at(at)),
                _ => None,
            };
            if let Some(past) = past {
                self.retained.entry(key.clone()).or_default().counters.add(past);
            }
            let sample = Sample::new(at, state.report, revision, former, continuous);
            state.samples.insert(key, sample);
        }
        if !frame.more {
            state.open = None;
            if whole {
                // The first report of a connection contains every revision. Requests of the others ended while disconnected.
                let current = state.report;
                for (key, sample) in state.samples.extract_if(|_, sample| sample.report != current) {
                    changed.push(key.function.clone());
                    let at = sample.at;
                    self.retained.entry(key).or_default().counters.add(sample.terminated_at(at));
                }
            }
        }
        if ignored > 0 && !state.truncated {
            state.truncated = true;
            tracing::warn!(activator = %source.address, ignored, limit = MAX_REVISIONS, "Activator reports too many revisions; ignored the excess, scale-down is disabled");
        }
        changed
    }

    /// Retains the counts of a process that ended at `now`, and its requests with it.
    fn retain_counters(&mut self, state: SourceState, now: Duration) {
        for (key, sample) in state.samples {
            self.retained.entry(key).or_default().counters.add(sample.terminated_at(now));
        }
    }

    /// Returns the demand for a revision at `now`.
    pub fn demand(&mut self, function: &FunctionKey, revision: &str, now: Duration) -> Demand {
        let key = Key { function: function.clone(), revision: revision.to_owned() };
        let retained = self.retained.get(&key).copied().unwrap_or_default();
        let (mut demand, mut counters, mut reported) = (Demand::default(), retained.counters, false);
        for sample in self.sources.values().filter_map(|state| state.samples.get(&key)) {
            reported = true;
            demand.in_flight = demand.in_flight.saturating_add(sample.in_flight);
            demand.queued = demand.queued.saturating_add(sample.queued);
            counters.add(sample.counted_at(now));
        }
        // Between frames the integrals are extrapolated, which overestimates a request that has ended since.
        let highest = counters.max(&retained.returned);
        let integrals = |counters: &Counters| (counters.request_us, counters.busy_us);
        if reported && integrals(&highest) != integrals(&retained.returned) {
            self.retained.entry(key).or_default().returned = highest;
        }
        demand.arrivals = counters.arrivals;
        demand.completions = counters.completions;
        demand.abandoned = counters.abandoned;
        demand.request_us = highest.request_us;
        demand.busy_us = highest.busy_us;
        demand.served_us = counters.served_us;
        demand
    }

    /// Returns the report of every activator that may send requests to `pod`, and the number of requests in the pod.
    pub fn pod_reports(&self, function: &FunctionKey, revision: &str, pod: &str) -> (Vec<PodReport>, u64) {
        let key = Key { function: function.clone(), revision: revision.to_owned() };
        let (mut reports, mut total) = (Vec::new(), 0u64);
        for state in self.sources.values() {
            let report = state.samples.get(&key).map_or(PodReport::Absent, |sample| sample.pod(pod));
            if let PodReport::Present { in_flight, .. } = report {
                total = total.saturating_add(in_flight);
            }
            // An activator that is starting has sent no request; once it is ready, it knows the marked pods.
            if state.required {
                reports.push(report);
            }
        }
        (reports, total)
    }

    /// Returns the requests in each pod of a revision, over all activators. A pod that is missing has none.
    pub fn loads(&self, function: &FunctionKey, revision: &str) -> HashMap<&str, u64> {
        let key = Key { function: function.clone(), revision: revision.to_owned() };
        let samples = self.sources.values().filter_map(|state| state.samples.get(&key));
        let mut loads = HashMap::new();
        for pod in samples.flat_map(|sample| &sample.pods) {
            let load: &mut u64 = loads.entry(pod.pod.as_str()).or_default();
            *load = load.saturating_add(pod.in_flight);
        }
        loads
    }

    /// Returns the last report of each activator about a revision.
    pub fn by_activator(&self, function: &FunctionKey, revision: &str, now: Duration) -> Vec<ActivatorDemand> {
        let key = Key { function: function.clone(), revision: revision.to_owned() };
        let demand = |(source, state): (&Source, &SourceState)| {
            let sample = state.samples.get(&key)?;
            Some(ActivatorDemand {
                source: source.clone(),
                age: now.saturating_sub(sample.at),
                in_flight: sample.in_flight,
                queued: sample.queued,
                held: sample.held,
                arrivals: sample.arrivals(),
                pods: sample.pods.to_vec(),
            })
        };
        let mut demands: Vec<_> = self.sources.iter().filter_map(demand).collect();
        demands.sort_by(|a, b| a.source.cmp(&b.source));
        demands
    }

    /// Returns the state of all activators.
    pub fn activators(&self, now: Duration) -> Vec<ActivatorStatus> {
        let status = |(source, state): (&Source, &SourceState)| ActivatorStatus {
            source: source.clone(),
            process: state.process.clone(),
            required: state.required,
            age: state.last_frame.map(|at| now.saturating_sub(at)),
            revisions: state.samples.len(),
        };
        let mut activators: Vec<_> = self.sources.iter().map(status).collect();
        activators.sort_by(|a, b| a.source.cmp(&b.source));
        activators
    }

    /// Drops revisions that do not exist any more, unless they still have requests.
    pub fn retain_revisions(&mut self, exists: impl Fn(&FunctionKey, &str) -> bool) {
        let mut busy = HashSet::new();
        for state in self.sources.values_mut() {
            state.samples.retain(|key, sample| {
                let has_requests = sample.in_flight + sample.queued > 0;
                if has_requests {
                    busy.insert(key.clone());
                }
                has_requests || exists(&key.function, &key.revision)
            });
            state.truncated = state.samples.len() >= MAX_REVISIONS;
        }
        self.retained.retain(|key, _| busy.contains(key) || exists(&key.function, &key.revision));
    }

    /// Drops a deleted Function. Its samples stay until [`Self::retain_revisions`] and are excluded from demand: an
    /// activator may report it once more after another Function was created under its name.
    pub fn remove_function(&mut self, function: &FunctionKey) {
        self.retained.retain(|key, _| key.function != *function);
        let samples = self.sources.values_mut().flat_map(|state| &mut state.samples);
        samples.filter(|(key, _)| key.function == *function).for_each(|(_, sample)| sample.exclude_all());
    }
}

#[cfg(test)]
mod tests;
