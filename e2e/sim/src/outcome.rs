//! Outcome of one policy on one function, and the sketches of its distributions.

use crate::{micros::Micros, pods::PodTime};

/// Growth factor of the buckets of a sketch: percentiles are exact to 1 %.
const GROWTH: f64 = 1.02;

/// A logarithmic histogram: percentiles over any number of samples in a few kilobytes. Exact for 0.
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

    /// Returns the quantile `part`; 0 without samples.
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
                // The middle of the bucket.
                return GROWTH.powf(f64::from(place) + 0.5);
            }
        }
        0.0
    }
}

/// Measurements of all requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    requests: u64,
    cold: u64,
    waits: Sketch,
    slowdowns: Sketch,
}

impl Samples {
    /// Records a request; `waited` and `service` are microseconds.
    pub(crate) fn record(&mut self, waited: Micros, service: u32, cold: bool) {
        self.requests += 1;
        self.cold += u64::from(cold);
        self.waits.add(waited as f64);
        // Stored as the excess over 1, since most requests have none and zero is exact.
        self.slowdowns.add(waited as f64 / f64::from(service.max(1)) * SLOWDOWN_SCALE);
    }
}

/// Scale of slowdowns in a sketch, whose values below 1 count as 0: a slowdown of 1 % has to be visible.
const SLOWDOWN_SCALE: f64 = 1_000.0;

/// Outcome of one policy on one function.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// Requests that arrived without a pod, or waited for a new pod.
    pub(crate) cold: u64,
    /// Time in the queue, in microseconds.
    pub(crate) waits: Sketch,
    slowdowns: Sketch,
    pub(crate) pods: PodTime,
    /// Changes of the wanted count.
    pub(crate) wanted: Vec<(Micros, u32)>,
}

impl Outcome {
    pub(crate) fn new(samples: Samples, pods: PodTime, wanted: Vec<(Micros, u32)>) -> Self {
        let Samples { requests, cold, waits, slowdowns } = samples;
        Self { requests, cold, waits, slowdowns, pods, wanted }
    }

    /// Returns the ratio of cold requests; `None` without requests.
    pub(crate) fn cold_ratio(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.cold as f64 / self.requests as f64)
    }

    /// Returns the time of idle and starting pods.
    pub(crate) fn wasted(&self) -> Micros {
        self.pods.all - self.pods.busy
    }

    pub(crate) fn merge_slowdowns(&self, into: &mut Sketch) {
        into.merge(&self.slowdowns);
    }

    /// Returns a percentile of response time over service time.
    pub(crate) fn slowdown(&self, part: f64) -> f64 {
        slowdown(&self.slowdowns, part)
    }
}

/// Returns a percentile of response time over service time.
pub(crate) fn slowdown(of: &Sketch, part: f64) -> f64 {
    1.0 + of.percentile(part) / SLOWDOWN_SCALE
}

/// Returns a percentile by the nearest rank; `None` without values.
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
    fn a_request_that_was_not_queued_has_no_slowdown() {
        let mut samples = Samples::default();
        samples.record(0, 1_000, false);
        samples.record(0, 1_000, false);
        samples.record(500_000, 1_000_000, true);
        let outcome = Outcome::new(samples, PodTime { all: 30, busy: 10, starts: 1 }, Vec::new());
        assert_eq!((outcome.cold_ratio(), outcome.wasted()), (Some(1.0 / 3.0), 20));
        assert_eq!(outcome.slowdown(0.5).to_bits(), 1f64.to_bits());
        assert!((outcome.slowdown(0.99) - 1.5).abs() < 0.02);
    }

    proptest! {
        #[test]
        fn a_sketch_is_exact_to_one_percent(
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
