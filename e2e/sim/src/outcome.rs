//! What came of one policy on one function.

use crate::{Micros, pods::PodTime};

/// Each place of a sketch is so much wider than the one before, so a percentile is right to a hundredth.
const GROWTH: f64 = 1.02;

/// Counts of values by their logarithm: percentiles over any number of samples in a few kilobytes. Exact for 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sketch {
    zeros: u64,
    places: Vec<u64>,
}

impl Sketch {
    /// Values below 1 count as 0.
    pub(crate) fn add(&mut self, value: f64) {
        if value < 1.0 {
            self.zeros += 1;
            return;
        }
        let place = (value.ln() / GROWTH.ln()) as usize;
        if place >= self.places.len() {
            self.places.resize(place + 1, 0);
        }
        self.places[place] += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.zeros += other.zeros;
        if other.places.len() > self.places.len() {
            self.places.resize(other.places.len(), 0);
        }
        for (mine, theirs) in self.places.iter_mut().zip(&other.places) {
            *mine += theirs;
        }
    }

    /// The value that `part` of the samples do not exceed; 0 without samples.
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let all = self.zeros + self.places.iter().sum::<u64>();
        let rank = (part * all as f64).ceil().max(1.0) as u64;
        let mut seen = self.zeros;
        if seen >= rank {
            return 0.0;
        }
        for (place, count) in (0..).zip(&self.places) {
            seen += count;
            if seen >= rank {
                // The middle of the place.
                return GROWTH.powf(f64::from(place) + 0.5);
            }
        }
        0.0
    }
}

/// What is measured of each call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    calls: u64,
    cold: u64,
    waits: Sketch,
    slowdowns: Sketch,
}

impl Samples {
    /// `waited` and `service` are microseconds.
    pub(crate) fn note(&mut self, waited: Micros, service: u32, cold: bool) {
        self.calls += 1;
        self.cold += u64::from(cold);
        self.waits.add(waited as f64);
        // As an excess, since most have none and that has to be told exactly and at no cost.
        self.slowdowns.add(waited as f64 / f64::from(service.max(1)) * SLOWDOWN_SCALE);
    }
}

/// A sketch is exact to a part of a value from 1 on, and a slowdown of a hundredth is to be seen.
const SLOWDOWN_SCALE: f64 = 1_000.0;

/// What came of one policy on one function.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) calls: u64,
    /// Calls that came when there was no pod, or waited for a new one.
    pub(crate) cold: u64,
    /// How long calls waited for a pod, in microseconds.
    pub(crate) waits: Sketch,
    slowdowns: Sketch,
    pub(crate) pods: PodTime,
    /// When how many pods were wanted, from the change on.
    pub(crate) wanted: Vec<(Micros, u32)>,
}

impl Outcome {
    pub(crate) fn new(samples: Samples, pods: PodTime, wanted: Vec<(Micros, u32)>) -> Self {
        let Samples { calls, cold, waits, slowdowns } = samples;
        Self { calls, cold, waits, slowdowns, pods, wanted }
    }

    /// Part of the calls that were cold; `None` without calls.
    pub(crate) fn cold_ratio(&self) -> Option<f64> {
        (self.calls > 0).then(|| self.cold as f64 / self.calls as f64)
    }

    /// Time in which pods were there, or starting, and did nothing.
    pub(crate) fn wasted(&self) -> Micros {
        self.pods.all - self.pods.busy
    }

    pub(crate) fn merge_slowdowns(&self, into: &mut Sketch) {
        into.merge(&self.slowdowns);
    }

    /// Response time over service time, at a percentile of this function's calls.
    pub(crate) fn slowdown(&self, part: f64) -> f64 {
        slowdown(&self.slowdowns, part)
    }
}

/// Response time over service time, at a percentile.
pub(crate) fn slowdown(of: &Sketch, part: f64) -> f64 {
    1.0 + of.percentile(part) / SLOWDOWN_SCALE
}

/// A percentile of a few values, by the nearest rank; `None` of none.
pub(crate) fn percentile(values: &mut [f64], part: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (part * values.len() as f64).ceil().max(1.0) as usize;
    values.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentiles_by_the_nearest_rank() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(percentile(&mut values, 0.5), Some(2.0));
        assert_eq!(percentile(&mut values, 0.75), Some(3.0));
        assert_eq!(percentile(&mut values, 0.76), Some(4.0));
        assert_eq!(percentile(&mut values, 0.0), Some(1.0));
        assert_eq!(percentile(&mut [], 0.5), None);
    }

    #[test]
    fn an_empty_sketch_is_zero() {
        assert_eq!(Sketch::default().percentile(0.99).to_bits(), 0);
    }

    #[test]
    fn a_call_that_did_not_wait_has_no_slowdown() {
        let mut samples = Samples::default();
        samples.note(0, 1_000, false);
        samples.note(0, 1_000, false);
        samples.note(500_000, 1_000_000, true);
        let outcome = Outcome::new(samples, PodTime { all: 30, busy: 10, starts: 1 }, Vec::new());
        assert_eq!((outcome.cold_ratio(), outcome.wasted()), (Some(1.0 / 3.0), 20));
        assert_eq!(outcome.slowdown(0.5).to_bits(), 1f64.to_bits());
        assert!((outcome.slowdown(0.99) - 1.5).abs() < 0.02);
    }

    proptest! {
        #[test]
        fn a_sketch_is_right_to_a_hundredth(
            mut values in prop::collection::vec(1.0f64..1e10, 1..200), split in 0usize..200, part in 0.0f64..1.0,
        ) {
            let (mut one, mut two) = (Sketch::default(), Sketch::default());
            for (nth, value) in values.iter().enumerate() {
                if nth < split { one.add(*value) } else { two.add(*value) }
            }
            one.merge(&two);
            let exact = percentile(&mut values, part).unwrap();
            prop_assert!((one.percentile(part) / exact - 1.0).abs() < 0.0101);
        }
    }
}
