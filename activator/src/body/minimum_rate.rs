//! Minimum rate of a request body.

use std::time::Duration;

/// Minimum rate of a request body. A client may be waited for as long as `grace` in all, and as much longer as its
/// bytes would take at this rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MinimumRate {
    /// Time for which a client that sends nothing is waited for.
    pub(crate) grace: Duration,
    /// Bytes per second that make up for the time they took; at least 1.
    pub(crate) rate: u64,
}

impl MinimumRate {
    /// Returns the rate, or `None` if a grace or a rate of zero disables it.
    pub(crate) fn new(grace: Duration, rate: u64) -> Option<Self> {
        (!grace.is_zero() && rate > 0).then_some(Self { grace, rate })
    }

    /// Returns the debt of a client in milliseconds, after it was waited for and then sent bytes. Bytes that arrive
    /// faster than the rate are not saved up: a client that stalls later has the same grace.
    pub(crate) fn debt(&self, before: u64, waited: u64, bytes: u64) -> u64 {
        before.saturating_add(waited).saturating_sub(bytes.saturating_mul(1000) / self.rate)
    }

    /// Returns for how many milliseconds a client with this debt may be waited for.
    pub(crate) fn patience(&self, debt: u64) -> u64 {
        u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX).saturating_sub(debt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const RATE: MinimumRate = MinimumRate { grace: Duration::from_secs(60), rate: 1024 };

    /// Returns the second in which the client is too slow, if it sends `bytes` each `seconds`.
    fn ends(bytes: u64, seconds: u64) -> Option<u64> {
        let (mut debt, mut now) = (0, 0);
        for _ in 0..10_000 {
            let patience = RATE.patience(debt) / 1000;
            if patience <= seconds {
                return Some(now + patience);
            }
            now += seconds;
            debt = RATE.debt(debt, seconds * 1000, bytes);
        }
        None
    }

    #[rstest]
    #[case::nothing(0, 1, Some(60))]
    #[case::one_byte_a_second(1, 1, Some(60))]
    #[case::half_the_rate(512, 1, Some(118))]
    #[case::the_rate(1024, 1, None)]
    #[case::in_bursts(59 * 1024, 59, None)]
    #[case::bursts_too_far_apart(1 << 30, 60, Some(60))]
    fn a_body_below_the_rate_ends(#[case] bytes: u64, #[case] seconds: u64, #[case] end: Option<u64>) {
        assert_eq!(ends(bytes, seconds), end);
    }

    #[test]
    fn zero_disables_it() {
        assert_eq!(MinimumRate::new(Duration::ZERO, 1), None);
        assert_eq!(MinimumRate::new(Duration::from_secs(1), 0), None);
        assert!(MinimumRate::new(Duration::from_secs(1), 1).is_some());
    }
}
