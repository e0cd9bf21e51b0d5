//! Random numbers that depend on the seed and on what they are for, and on nothing else: not on which thread asks first,
//! nor on what other functions have drawn.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, LogNormal};

/// What random numbers are for. Each has a stream of its own, so that two policies see the same function being called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// What a function is like.
    Nature,
    /// When it is called, and how long each call takes.
    Calls,
    /// How long its pods take to start.
    Starts,
}

/// The stream for one purpose of one function.
pub(crate) fn stream(seed: u64, function: usize, purpose: Purpose) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream((function as u64) << 2 | purpose as u64);
    random
}

/// A log-normal number with this median. `spread` is the standard deviation of its logarithm.
pub(crate) fn log_normal(random: &mut ChaCha8Rng, median: f64, spread: f64) -> f64 {
    // Only a spread that is no number is refused, and then there is no spread.
    LogNormal::new(median.max(f64::MIN_POSITIVE).ln(), spread).map_or(median, |d| d.sample(random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng as _;

    #[test]
    fn a_stream_is_its_own_and_the_same_every_time() {
        let draw = |seed, function, purpose| stream(seed, function, purpose).random::<u64>();
        assert_eq!(draw(1, 7, Purpose::Calls), draw(1, 7, Purpose::Calls));
        assert_ne!(draw(1, 7, Purpose::Calls), draw(2, 7, Purpose::Calls));
        assert_ne!(draw(1, 7, Purpose::Calls), draw(1, 8, Purpose::Calls));
        assert_ne!(draw(1, 7, Purpose::Calls), draw(1, 7, Purpose::Starts));
    }

    #[test]
    fn half_of_log_normal_numbers_are_below_the_median() {
        let mut random = stream(1, 0, Purpose::Nature);
        let below = (0..10_000).filter(|_| log_normal(&mut random, 0.4, 0.6) < 0.4).count();
        assert!((4_800..5_200).contains(&below), "{below}");
    }
}
