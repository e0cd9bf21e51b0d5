//! Demand for each revision, summed over all activators. Pure: time is a [`Duration`] since any fixed origin.
//!
//! Demand is what happens while it is listened to. What a process had counted before it was heard, and between two frames
//! that are too far apart, is set aside, see [`sample`].
//!
//! A missing activator is never zero. One that cannot be reached keeps its last known requests, and they go on adding to
//! the integral of requests over time, until its endpoint is gone. Counters never go back: what an activator had counted
//! when it went, or began anew, is carried on.

mod sample;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use rouse_autoscaler::Demand;
use rouse_crds::demand::{Frame, HEARTBEAT, PodDemand, RevisionDemand};

use crate::cluster::key::FunctionKey;
pub use sample::Word;
use sample::{Counters, Sample};

/// An activator's pod, as the EndpointSlices have it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// Its admin port.
    pub address: SocketAddr,
    /// `uid` of the pod: an address is used again by others.
    pub pod: Option<String>,
}

/// A revision of a function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    function: FunctionKey,
    revision: String,
}

impl Key {
    fn of(told: &RevisionDemand) -> Self {
        Self { function: FunctionKey::new(&told.namespace, &told.function), revision: told.revision.clone() }
    }
}

/// One activator's part in what is known of a revision, for whoever asks.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which activator.
    pub source: Source,
    /// How long ago what follows was so.
    pub age: Duration,
    /// Requests in pods.
    pub in_flight: u64,
    /// Requests that wait.
    pub queued: u64,
    /// Requests that came to this process.
    pub arrivals: u64,
    /// Pods that it named.
    pub pods: Vec<PodDemand>,
}

/// One activator, for whoever asks.
#[derive(Clone, Debug)]
pub struct Activator {
    /// Which.
    pub source: Source,
    /// Its process, once it has been heard.
    pub process: Option<String>,
    /// Whether nothing may be scaled down before it has been heard.
    pub awaited: bool,
    /// How long ago it was heard last.
    pub age: Option<Duration>,
    /// Revisions that it has told of.
    pub revisions: usize,
}

/// Revisions of one activator; what is beyond is not taken in. Ten thousand Functions with all the revisions that are kept.
const MOST_REVISIONS: usize = 100_000;

/// A frame comes at least every [`HEARTBEAT`]; one second is for the way. After that, what was heard is no longer what is.
pub(super) const FRESH: Duration = HEARTBEAT.saturating_add(Duration::from_secs(1));

/// What is known of one activator. Bounded by the revisions that it has been called for, and by [`MOST_REVISIONS`].
#[derive(Debug, Default)]
struct Known {
    /// Whether nothing may be scaled down before it has been heard.
    awaited: bool,
    /// Its process, once it has been heard.
    process: Option<String>,
    /// When it was heard last.
    heard: Option<Duration>,
    /// By how much our clock is ahead of the process's, and when that was found.
    ahead: Option<(Duration, Duration)>,
    samples: HashMap<Key, Sample>,
    /// Whether there are more than can be, which was said.
    overfull: bool,
}

impl Known {
    /// The moment of our clock at which a frame was written that says `written` and came at `now`.
    ///
    /// Frames are on the way for different times. Were that taken for time in which requests ran, a steady single request
    /// would look like a little more than one, and one more pod would be wanted. So the quickest way of all frames is
    /// taken for every one of them; as clocks drift apart, that is let go by a thousandth of the time that passes.
    fn moment(&mut self, written: Duration, now: Duration) -> Duration {
        let ahead = now.saturating_sub(written);
        let ahead = match self.ahead {
            Some((before, at)) => ahead.min(before + now.saturating_sub(at) / 1000),
            None => ahead,
        };
        self.ahead = Some((ahead, now));
        (written + ahead).min(now)
    }
}

/// Counters of processes that are gone, and the highest integrals that were ever given out.
#[derive(Clone, Copy, Debug, Default)]
struct Carried {
    counters: Counters,
    /// Only its integrals are used.
    given: Counters,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Aggregate {
    sources: HashMap<Source, Known>,
    carried: HashMap<Key, Carried>,
}

impl Aggregate {
    /// Takes in which activators there are; `true` are those that may have requests, and so have to be heard before
    /// anything is scaled down. Yields the Functions whose demand changed with it.
    pub fn set_sources(&mut self, sources: &HashMap<Source, bool>, now: Duration) -> Vec<FunctionKey> {
        let mut touched = Vec::new();
        let gone: Vec<_> = self.sources.keys().filter(|source| !sources.contains_key(source)).cloned().collect();
        for source in gone {
            if let Some(known) = self.sources.remove(&source) {
                touched.extend(known.samples.keys().map(|key| key.function.clone()));
                self.carry(known, now);
            }
        }
        for (source, awaited) in sources {
            self.sources.entry(source.clone()).or_default().awaited = *awaited;
        }
        touched
    }

    /// Whether every activator that may have requests has been heard lately and whole, and there is one at all. Else a low
    /// demand may be nothing but ignorance.
    pub fn complete(&self, now: Duration) -> bool {
        let heard = |known: &Known| known.heard.is_some_and(|at| now.saturating_sub(at) <= FRESH) && !known.overfull;
        !self.sources.is_empty() && self.sources.values().all(|known| !known.awaited || heard(known))
    }

    /// Takes in a frame of `source` that came at `now`. Yields the Functions that it speaks of.
    pub fn frame(&mut self, source: &Source, frame: Frame, now: Duration) -> Vec<FunctionKey> {
        let Some(known) = self.sources.get_mut(source) else {
            // It went while its last frame was on the way.
            return Vec::new();
        };
        let mut touched = Vec::new();
        if known.process.as_ref() != Some(&frame.process) {
            let awaited = known.awaited;
            let former = std::mem::replace(known, Known { awaited, process: Some(frame.process), ..Known::default() });
            touched.extend(former.samples.keys().map(|key| key.function.clone()));
            self.carry(former, now);
        }
        let Some(known) = self.sources.get_mut(source) else { return touched };
        if frame.sequence == 0 {
            // The first frame of a connection tells all that there is. What it lacks has ended while nobody listened.
            let told: HashSet<_> = frame.revisions.iter().map(Key::of).collect();
            for (key, sample) in known.samples.extract_if(|key, _| !told.contains(key)) {
                touched.push(key.function.clone());
                let at = sample.at;
                self.carried.entry(key).or_default().counters.add(sample.ended(at));
            }
        }
        let listened = known.heard.replace(now).is_some_and(|before| now.saturating_sub(before) <= FRESH);
        let at = known.moment(Duration::from_micros(frame.at_us), now);
        let mut left_out = 0usize;
        for told in frame.revisions {
            let key = Key::of(&told);
            if known.samples.len() >= MOST_REVISIONS && !known.samples.contains_key(&key) {
                left_out += 1;
                continue;
            }
            touched.push(key.function.clone());
            let former = known.samples.get(&key);
            if let Some(former) = former.filter(|former| former.is_restarted_by(&told)) {
                self.carried.entry(key.clone()).or_default().counters.add(former.told());
            }
            let sample = Sample::new(at, told, former, listened);
            known.samples.insert(key, sample);
        }
        if left_out > 0 && !known.overfull {
            known.overfull = true;
            tracing::warn!(activator = %source.address, left_out, "An activator tells of more revisions than there can be; those that are beyond are not taken in");
        }
        touched
    }

    /// Carries on what a process had counted up to `now`. Its requests end with it.
    fn carry(&mut self, known: Known, now: Duration) {
        for (key, sample) in known.samples {
            self.carried.entry(key).or_default().counters.add(sample.ended(now));
        }
    }

    /// Demand for a revision at `now`.
    pub fn demand(&mut self, function: &FunctionKey, revision: &str, now: Duration) -> Demand {
        let key = Key { function: function.clone(), revision: revision.to_owned() };
        let carried = self.carried.get(&key).copied().unwrap_or_default();
        let (mut demand, mut counters, mut heard) = (Demand::default(), carried.counters, false);
        for sample in self.sources.values().filter_map(|known| known.samples.get(&key)) {
            heard = true;
            demand.in_flight = demand.in_flight.saturating_add(sample.in_flight);
            demand.queued = demand.queued.saturating_add(sample.queued);
            counters.add(sample.by(now));
        }
        // Between frames the integrals are a guess that runs ahead of a request which has ended since.
        let given = counters.max(&carried.given);
        if heard && (given.request_us, given.busy_us) != (carried.given.request_us, carried.given.busy_us) {
            self.carried.entry(key).or_default().given = given;
        }
        demand.arrivals = counters.arrivals;
        demand.completions = counters.completions;
        demand.abandoned = counters.abandoned;
        demand.request_us = given.request_us;
        demand.busy_us = given.busy_us;
        demand.served_us = counters.served_us;
        demand
    }

    /// What every activator that may send to it says of `pod`, and how many requests are in it over all.
    pub fn words(&self, function: &FunctionKey, revision: &str, pod: &str) -> (Vec<Word>, u64) {
        let key = Key { function: function.clone(), revision: revision.to_owned() };
        let (mut words, mut in_flight) = (Vec::new(), 0u64);
        for known in self.sources.values() {
            let word = known.samples.get(&key).map_or(Word::Unnamed, |sample| sample.word(pod));
            if let Word::Named { in_flight: some, .. } = word {
                in_flight = in_flight.saturating_add(some);
            }
            // One that only starts has sent nothing; once it is ready it knows what is marked.
            if known.awaited {
                words.push(word);
            }
        }
        (words, in_flight)
    }

    /// Requests in the pods of a revision, over all activators that say; one that is not here has none.
    pub fn loads(&self, function: &FunctionKey, revision: &str) -> HashMap<&str, u64> {
        let key = Key { function: function.clone(), revision: revision.to_owned() };
        let samples = self.sources.values().filter_map(|known| known.samples.get(&key));
        let mut loads = HashMap::new();
        for pod in samples.flat_map(|sample| &sample.pods) {
            let load: &mut u64 = loads.entry(pod.pod.as_str()).or_default();
            *load = load.saturating_add(pod.in_flight);
        }
        loads
    }

    /// What each activator has said of a revision last.
    pub fn parts(&self, function: &FunctionKey, revision: &str, now: Duration) -> Vec<Part> {
        let key = Key { function: function.clone(), revision: revision.to_owned() };
        let part = |(source, known): (&Source, &Known)| {
            let sample = known.samples.get(&key)?;
            Some(Part {
                source: source.clone(),
                age: now.saturating_sub(sample.at),
                in_flight: sample.in_flight,
                queued: sample.queued,
                arrivals: sample.arrivals(),
                pods: sample.pods.to_vec(),
            })
        };
        let mut parts: Vec<_> = self.sources.iter().filter_map(part).collect();
        parts.sort_by(|a, b| a.source.cmp(&b.source));
        parts
    }

    /// The activators that there are.
    pub fn activators(&self, now: Duration) -> Vec<Activator> {
        let activator = |(source, known): (&Source, &Known)| Activator {
            source: source.clone(),
            process: known.process.clone(),
            awaited: known.awaited,
            age: known.heard.map(|at| now.saturating_sub(at)),
            revisions: known.samples.len(),
        };
        let mut activators: Vec<_> = self.sources.iter().map(activator).collect();
        activators.sort_by(|a, b| a.source.cmp(&b.source));
        activators
    }

    /// Forgets revisions that are no more, unless they have requests still.
    pub fn keep(&mut self, exists: impl Fn(&FunctionKey, &str) -> bool) {
        let mut busy = HashSet::new();
        for known in self.sources.values_mut() {
            known.samples.retain(|key, sample| {
                let has_some = sample.in_flight + sample.queued > 0;
                if has_some {
                    busy.insert(key.clone());
                }
                has_some || exists(&key.function, &key.revision)
            });
            known.overfull = known.samples.len() >= MOST_REVISIONS;
        }
        self.carried.retain(|key, _| busy.contains(key) || exists(&key.function, &key.revision));
    }

    /// Forgets a Function that is gone. What was heard of it stays until [`Self::keep`] and counts as nothing: an activator
    /// that does not know yet may tell it once more, and there may be another Function of the name by then.
    pub fn forget(&mut self, function: &FunctionKey) {
        self.carried.retain(|key, _| key.function != *function);
        let samples = self.sources.values_mut().flat_map(|known| &mut known.samples);
        samples.filter(|(key, _)| key.function == *function).for_each(|(_, sample)| sample.settle());
    }
}

#[cfg(test)]
mod tests;
