//! Demand for each revision, summed over all activators. Pure: time is a [`Duration`] since any fixed origin.
//!
//! A missing activator is never zero. One that cannot be reached keeps its last known requests, and they go on adding to
//! the integral of requests over time, until its endpoint is gone. Counters never go back: what an activator had counted
//! when it went, or began anew, is carried on.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use rouse_autoscaler::Demand;
use rouse_crds::demand::{Frame, HEARTBEAT, RevisionDemand};

use crate::key::FunctionKey;

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

/// What one activator said of one revision last.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    in_flight: u64,
    queued: u64,
    arrivals: u64,
    request_us: u64,
}

impl Sample {
    /// The integral at `now`, if nothing has changed since.
    fn request_us(&self, now: Duration) -> u64 {
        let passed = u64::try_from(now.saturating_sub(self.at).as_micros()).unwrap_or(u64::MAX);
        self.request_us.saturating_add(passed.saturating_mul(self.in_flight.saturating_add(self.queued)))
    }
}

/// A frame comes at least every [`HEARTBEAT`]; one second is for the way. After that, what was heard is no longer what is.
const FRESH: Duration = HEARTBEAT.saturating_add(Duration::from_secs(1));

/// What is known of one activator. Bounded by the revisions that it has been called for.
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

/// Counters of processes that are gone, and the highest that was ever given out.
#[derive(Clone, Copy, Debug, Default)]
struct Carried {
    arrivals: u64,
    request_us: u64,
    given: u64,
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

    /// Whether every activator that may have requests has been heard lately, and there is one at all. Else a low demand may
    /// be nothing but ignorance.
    pub fn complete(&self, now: Duration) -> bool {
        let fresh = |known: &Known| known.heard.is_some_and(|at| now.saturating_sub(at) <= FRESH);
        !self.sources.is_empty() && self.sources.values().all(|known| !known.awaited || fresh(known))
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
        known.heard = Some(now);
        let at = known.moment(Duration::from_micros(frame.at_us), now);
        for revision in frame.revisions {
            let RevisionDemand {
                namespace,
                function,
                revision,
                in_flight,
                queued,
                arrivals,
                completions: _,
                request_us,
                pods: _,
                outcomes: _,
            } = revision;
            let key = Key { function: FunctionKey { namespace, name: function }, revision };
            touched.push(key.function.clone());
            let sample = Sample { at, in_flight, queued, arrivals, request_us };
            let former = known.samples.insert(key.clone(), sample);
            // A revision that lost its traffic and got it again is counted from zero by the same process.
            if let Some(former) = former.filter(|f| arrivals < f.arrivals || request_us < f.request_us) {
                let carried = self.carried.entry(key).or_default();
                carried.arrivals = carried.arrivals.saturating_add(former.arrivals);
                carried.request_us = carried.request_us.saturating_add(former.request_us);
            }
        }
        touched
    }

    /// Carries on what a process had counted up to `now`. Its requests end with it.
    fn carry(&mut self, known: Known, now: Duration) {
        for (key, sample) in known.samples {
            let carried = self.carried.entry(key).or_default();
            carried.arrivals = carried.arrivals.saturating_add(sample.arrivals);
            carried.request_us = carried.request_us.saturating_add(sample.request_us(now));
        }
    }

    /// Demand for a revision at `now`.
    pub fn demand(&mut self, function: &FunctionKey, revision: &str, now: Duration) -> Demand {
        let key = Key { function: function.clone(), revision: revision.to_owned() };
        let carried = self.carried.get(&key).copied().unwrap_or_default();
        let mut demand = Demand { arrivals: carried.arrivals, request_us: carried.request_us, ..Demand::default() };
        let mut heard = false;
        for sample in self.sources.values().filter_map(|known| known.samples.get(&key)) {
            heard = true;
            demand.in_flight = demand.in_flight.saturating_add(sample.in_flight);
            demand.queued = demand.queued.saturating_add(sample.queued);
            demand.arrivals = demand.arrivals.saturating_add(sample.arrivals);
            demand.request_us = demand.request_us.saturating_add(sample.request_us(now));
        }
        // Between frames the integral is a guess that runs ahead of a request which has ended since.
        demand.request_us = demand.request_us.max(carried.given);
        if heard {
            self.carried.entry(key).or_default().given = demand.request_us;
        }
        demand
    }

    /// Forgets a Function that is gone.
    pub fn forget(&mut self, function: &FunctionKey) {
        self.carried.retain(|key, _| key.function != *function);
        for known in self.sources.values_mut() {
            known.samples.retain(|key, _| key.function != *function);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::demand::VERSION;

    fn source(last: u8) -> Source {
        Source { address: SocketAddr::from(([10, 0, 0, last], 9090)), pod: None }
    }

    fn sources(lasts: &[u8]) -> HashMap<Source, bool> {
        lasts.iter().map(|last| (source(*last), true)).collect()
    }

    /// A frame that a process which began at 0 wrote in this second.
    fn frame(second: u64, process: &str, in_flight: u64, arrivals: u64, request_us: u64) -> Frame {
        let revision = RevisionDemand {
            namespace: "ns".into(),
            function: "f".into(),
            revision: "f-00001".into(),
            in_flight,
            queued: 0,
            arrivals,
            completions: 0,
            request_us,
            ..RevisionDemand::default()
        };
        Frame {
            version: VERSION,
            process: process.into(),
            sequence: 0,
            at_us: second * 1_000_000,
            revisions: vec![revision],
        }
    }

    fn demand(aggregate: &mut Aggregate, second: u64) -> Demand {
        aggregate.demand(&FunctionKey::new("ns", "f"), "f-00001", at(second))
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn sums_over_activators() {
        let mut aggregate = Aggregate::default();
        aggregate.set_sources(&sources(&[1, 2]), at(0));
        assert_eq!(aggregate.frame(&source(1), frame(1, "a", 2, 5, 100), at(1)), [FunctionKey::new("ns", "f")]);
        aggregate.frame(&source(2), frame(1, "b", 0, 7, 50), at(1));
        let sum = Demand { in_flight: 2, queued: 0, arrivals: 12, request_us: 150 };
        assert_eq!(demand(&mut aggregate, 1), sum);
    }

    #[test]
    fn an_activator_that_is_not_heard_keeps_its_requests_until_it_is_gone() {
        let mut aggregate = Aggregate::default();
        aggregate.set_sources(&sources(&[1]), at(0));
        aggregate.frame(&source(1), frame(0, "a", 3, 3, 0), at(0));
        let silent = demand(&mut aggregate, 10);
        assert_eq!((silent.in_flight, silent.request_us), (3, 30_000_000), "three requests for ten seconds");
        aggregate.set_sources(&sources(&[]), at(20));
        let gone = demand(&mut aggregate, 30);
        assert_eq!((gone.in_flight, gone.arrivals, gone.request_us), (0, 3, 60_000_000));
    }

    #[test]
    fn a_restart_never_takes_counters_back() {
        let mut aggregate = Aggregate::default();
        aggregate.set_sources(&sources(&[1]), at(0));
        aggregate.frame(&source(1), frame(5, "a", 1, 100, 5_000_000), at(5));
        let before = demand(&mut aggregate, 6);
        aggregate.frame(&source(1), frame(6, "a-again", 0, 1, 10), at(6));
        let after = demand(&mut aggregate, 6);
        assert_eq!(after, Demand { in_flight: 0, queued: 0, arrivals: 101, request_us: 6_000_010 });
        assert!(after.request_us >= before.request_us);
        // A Function that the new process has not been called for keeps its counters as well.
        aggregate.set_sources(&sources(&[]), at(7));
        assert_eq!(demand(&mut aggregate, 7).arrivals, 101);
    }

    #[test]
    fn the_guess_between_frames_is_never_taken_back() {
        let mut aggregate = Aggregate::default();
        aggregate.set_sources(&sources(&[1]), at(0));
        aggregate.frame(&source(1), frame(0, "a", 1, 1, 0), at(0));
        assert_eq!(demand(&mut aggregate, 2).request_us, 2_000_000);
        // It had ended after one second.
        aggregate.frame(&source(1), frame(2, "a", 0, 1, 1_000_000), at(2));
        assert_eq!(demand(&mut aggregate, 3).request_us, 2_000_000);
    }

    #[test]
    fn knows_when_it_does_not_know() {
        let mut aggregate = Aggregate::default();
        assert!(!aggregate.complete(at(0)), "no activator at all");
        aggregate.set_sources(&HashMap::from([(source(1), true), (source(2), false)]), at(0));
        assert!(!aggregate.complete(at(0)), "one that may have requests has not been heard");
        aggregate.frame(&source(1), frame(1, "a", 0, 0, 0), at(1));
        assert!(aggregate.complete(at(1)), "one that is not ready yet has none");
        aggregate.set_sources(&sources(&[1, 2]), at(2));
        assert!(!aggregate.complete(at(2)));
        aggregate.set_sources(&sources(&[1]), at(3));
        assert!(aggregate.complete(at(3)));
        assert!(!aggregate.complete(at(5)), "one that fell silent at zero is not known to be at zero");
        aggregate.frame(&source(1), frame(5, "a", 0, 0, 0), at(5));
        assert!(aggregate.complete(at(5)));
    }

    #[test]
    fn a_revision_that_is_counted_anew_by_the_same_process_goes_on() {
        let mut aggregate = Aggregate::default();
        aggregate.set_sources(&sources(&[1]), at(0));
        aggregate.frame(&source(1), frame(1, "a", 0, 100, 50_000_000), at(1));
        let before = demand(&mut aggregate, 1);
        aggregate.frame(&source(1), frame(2, "a", 1, 1, 0), at(2));
        aggregate.frame(&source(1), frame(4, "a", 1, 1, 2_000_000), at(4));
        let after = demand(&mut aggregate, 4);
        assert_eq!(after.arrivals, before.arrivals + 1);
        assert_eq!(after.request_us, before.request_us + 2_000_000);
    }

    #[test]
    fn the_way_of_a_frame_is_not_taken_for_time_in_which_requests_ran() {
        let mut aggregate = Aggregate::default();
        aggregate.set_sources(&sources(&[1]), at(0));
        let millis = Duration::from_millis;
        // One request runs all the time; the second frame is 40 ms late.
        aggregate.frame(&source(1), frame(1, "a", 1, 1, 1_000_000), at(1));
        aggregate.frame(&source(1), frame(2, "a", 1, 1, 2_000_000), at(2) + millis(40));
        let late = demand(&mut aggregate, 3).request_us;
        aggregate.frame(&source(1), frame(3, "a", 1, 1, 3_000_000), at(3));
        let seen = [late, demand(&mut aggregate, 3).request_us, demand(&mut aggregate, 4).request_us];
        for (seen, expected) in seen.into_iter().zip([3_000_000u64, 3_000_000, 4_000_000]) {
            assert!(seen.abs_diff(expected) <= 2_000, "{seen} is not {expected}");
        }
    }

    #[test]
    fn an_address_that_another_pod_took_over_is_another_source() {
        let mut aggregate = Aggregate::default();
        let of = |pod: &str| Source { pod: Some(pod.into()), ..source(1) };
        aggregate.set_sources(&HashMap::from([(of("x"), true)]), at(0));
        aggregate.frame(&of("x"), frame(0, "a", 4, 4, 0), at(0));
        aggregate.set_sources(&HashMap::from([(of("y"), true)]), at(1));
        assert_eq!(demand(&mut aggregate, 1).in_flight, 0);
        assert!(aggregate.frame(&of("x"), frame(1, "a", 9, 9, 0), at(1)).is_empty(), "its last words are not heard");
        assert_eq!(demand(&mut aggregate, 1).in_flight, 0);
    }

    #[test]
    fn a_function_that_is_gone_is_forgotten() {
        let mut aggregate = Aggregate::default();
        aggregate.set_sources(&sources(&[1]), at(0));
        aggregate.frame(&source(1), frame(0, "a", 1, 1, 1), at(0));
        demand(&mut aggregate, 0);
        aggregate.forget(&FunctionKey::new("ns", "f"));
        assert_eq!(demand(&mut aggregate, 1), Demand::default());
        assert!(aggregate.carried.is_empty());
    }
}
