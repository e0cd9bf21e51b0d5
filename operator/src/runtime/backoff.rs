//! Exponential backoff with jitter.

use std::time::Duration;

use rand::Rng as _;

/// Exponential backoff with jitter between `base` and `cap`.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Longest first delay.
    pub base: Duration,
    /// Maximum delay.
    pub cap: Duration,
}

/// Backoff for retries of a reconcile.
pub const RECONCILE: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(300) };

/// Backoff for retries of a write that the API server rejected. Somebody has to change something first, and expects it to take
/// effect soon after.
pub const REJECTED: Backoff = Backoff { base: Duration::from_secs(10), cap: Duration::from_secs(60) };

/// Backoff for retries that are urgent: a scale patch, a connection to an activator.
pub const QUICK: Backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(10) };

impl Backoff {
    /// Returns the delay after `failures` (from 1) consecutive failures: `base × 2^(failures-1)`, at most `cap`, minus
    /// a random part of up to half, so that simultaneous failures do not retry simultaneously.
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
    fn delays_grow_to_the_cap_with_at_most_half_jitter() {
        for failures in 1..200 {
            let wait = RECONCILE.after(failures);
            assert!(wait >= Duration::from_millis(500), "{wait:?}");
            assert!(wait <= RECONCILE.cap, "{wait:?}");
        }
        assert!(RECONCILE.after(1) <= Duration::from_secs(1));
        assert!(RECONCILE.after(100) >= Duration::from_secs(150));
    }
}
