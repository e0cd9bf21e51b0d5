//! How long to wait before the next try.

use std::time::Duration;

use rand::Rng as _;

/// Exponential back-off with jitter between `base` and `cap`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The middle of the first wait.
    pub base: Duration,
    /// No wait is longer.
    pub cap: Duration,
}

/// Between two tries to reconcile the same Function.
pub const RECONCILE: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(300) };

/// Between two tries to write the same replica count, or to reach the same activator: both are wanted soon.
pub const QUICK: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) };

impl Backoff {
    /// The wait after `failures` (from 1) in a row: `base × 2^(failures-1)`, at most `cap`, of which a random half is
    /// taken off, so that many who failed at once do not come again at once.
    #[must_use]
    pub fn after(self, failures: u32) -> Duration {
        let exponent = failures.saturating_sub(1).min(20);
        let longest = self.base.saturating_mul(1 << exponent).min(self.cap);
        longest.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap_and_stays_within_half_of_it() {
        for failures in 1..200 {
            let wait = RECONCILE.after(failures);
            assert!(wait >= Duration::from_millis(500), "{wait:?}");
            assert!(wait <= RECONCILE.cap, "{wait:?}");
        }
        assert!(RECONCILE.after(1) <= Duration::from_secs(1));
        assert!(RECONCILE.after(100) >= Duration::from_secs(150));
    }
}
