//! Random number streams that depend only on the seed, the function and the purpose: not on threads or other functions.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, LogNormal};

use crate::micros::MICROS_PER_SECOND;

/// Purpose of random numbers. Each has a separate stream, so that all policies get the same requests.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// Properties of a function.
    Profile,
    /// Arrival and service times of requests.
    Requests,
    /// Pod start times.
    Starts,
}

/// Returns the stream for one purpose of one function.
pub(crate) fn stream(seed: u64, function: usize, purpose: Purpose) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream((function as u64) << 2 | purpose as u64);
    random
}

/// Returns a log-normal number with this median. `spread` is the standard deviation of its logarithm.
pub(crate) fn log_normal(random: &mut ChaCha8Rng, median: f64, spread: f64) -> f64 {
    // Only a NaN spread is rejected, and replaced by no spread.
    LogNormal::new(median.max(f64::MIN_POSITIVE).ln(), spread).map_or(median, |d| d.sample(random))
}

/// Returns a random service time of one millisecond to one hour, in microseconds.
pub(crate) fn service(random: &mut ChaCha8Rng, median: f64, spread: f64) -> u32 {
    (log_normal(random, median, spread).clamp(0.001, 3_600.0) * MICROS_PER_SECOND) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng as _;

    #[test]
    fn streams_are_independent_and_reproducible() {
        let draw = |seed, function, purpose| stream(seed, function, purpose).random::<u64>();
        assert_eq!(draw(1, 7, Purpose::Requests), draw(1, 7, Purpose::Requests));
        assert_ne!(draw(1, 7, Purpose::Requests), draw(2, 7, Purpose::Requests));
        assert_ne!(draw(1, 7, Purpose::Requests), draw(1, 8, Purpose::Requests));
        assert_ne!(draw(1, 7, Purpose::Requests), draw(1, 7, Purpose::Starts));
    }

    #[test]
    fn half_of_log_normal_numbers_are_below_the_median() {
        let mut random = stream(1, 0, Purpose::Profile);
        let below = (0..10_000).filter(|_| log_normal(&mut random, 0.4, 0.6) < 0.4).count();
        assert!((4_800..5_200).contains(&below), "{below}");
    }
}
