//! Round-trip time to pods, and the timeout that follows from it.

use std::time::Duration;

/// Smoothed round-trip time and its variation, as TCP keeps them for retransmissions (RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    estimate: Option<Estimate>,
}

#[derive(Clone, Copy, Debug)]
struct Estimate {
    smoothed: Duration,
    variation: Duration,
}

/// A busy node responds some milliseconds late, however near it is.
const LEAST_VARIATION: Duration = Duration::from_millis(30);
/// Nothing is given up sooner or later than this.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);

impl RoundTrip {
    /// Takes in what one took.
    pub(super) fn measured(&mut self, took: Duration) {
        self.estimate = Some(match self.estimate {
            None => Estimate { smoothed: took, variation: took / 2 },
            Some(Estimate { smoothed, variation }) => Estimate {
                smoothed: (smoothed * 7 + took) / 8,
                variation: (variation * 3 + smoothed.abs_diff(took)) / 4,
            },
        });
    }

    /// After how long without an answer it is likelier that something was lost than that it is still on the way. `None`
    /// before the first measurement.
    pub(super) fn limit(&self) -> Option<Duration> {
        let Estimate { smoothed, variation } = self.estimate?;
        Some((smoothed + (variation * 4).max(LEAST_VARIATION)).clamp(SHORTEST, LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(trips: &[u64]) -> Duration {
        let mut round_trip = RoundTrip::default();
        trips.iter().for_each(|ms| round_trip.measured(Duration::from_millis(*ms)));
        round_trip.limit().unwrap()
    }

    #[test]
    fn there_is_no_timeout_before_the_first_measurement() {
        assert_eq!(RoundTrip::default().limit(), None);
    }

    #[test]
    fn the_timeout_settles_a_little_above_the_measurements() {
        assert_eq!(after(&[0]), SHORTEST);
        assert_eq!(after(&[80]), Duration::from_millis(240), "one measurement says little");
        let settled = after(&[80; 20]);
        assert!(settled >= Duration::from_millis(110) && settled < Duration::from_millis(125), "{settled:?}");
        assert!(after(&[80, 120, 80, 120, 80, 120, 80, 120]) > settled, "an uneven network is given more");
        assert_eq!(after(&[10_000]), LONGEST);
    }

    #[test]
    fn the_timeout_follows_a_network_that_became_slow() {
        let mut trips = vec![1; 100];
        trips.extend([300; 30]);
        assert!(after(&trips) > Duration::from_millis(300), "{:?}", after(&trips));
    }
}
