//! Exponential backoff with jitter.

use std::time::Duration;

use rand::Rng;

/// Returns `first` doubled `tries` times and capped at `most`, times a random factor between a half and one.
pub(crate) fn jitter(first: Duration, tries: u32, most: Duration) -> Duration {
    let grown = first.saturating_mul(1_u32.checked_shl(tries.min(20)).unwrap_or(u32::MAX)).min(most);
    grown.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_to_its_cap() {
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(60));
        for tries in [0, 1, 5, 6, 40, u32::MAX] {
            let grown = Duration::from_secs(1 << tries.min(10)).min(most);
            let delay = jitter(first, tries, most);
            assert!(delay >= grown / 2 && delay <= grown, "{tries}: {delay:?}");
        }
    }
}
