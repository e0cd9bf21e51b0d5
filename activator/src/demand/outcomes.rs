//! Outcomes of requests per revision, which a rollout is aborted by.

use std::time::Duration;

use rouse_crds::demand::{LATENCY_BUCKETS, Outcomes, latency_bucket};

/// Outcomes of a revision's requests, counted while a rollout depends on them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    asked: bool,
    /// Kept from the first request for them on: counts never decrease.
    counts: Option<Box<Counts>>,
}

#[derive(Debug)]
struct Counts {
    answered: u64,
    failed: u64,
    latencies: [u64; LATENCY_BUCKETS as usize],
}

impl Tally {
    /// Sets whether outcomes are counted.
    pub(super) fn ask(&mut self, asked: bool) {
        self.asked = asked;
    }

    /// Counts a request that ended, with the time until the head of its response if it had one. Returns whether it was
    /// counted.
    pub(super) fn count(&mut self, failed: bool, latency: Option<Duration>) -> bool {
        if self.asked {
            let counts = self.counts.get_or_insert_default();
            counts.answered += 1;
            counts.failed += u64::from(failed);
            if let Some(latency) = latency {
                counts.latencies[usize::from(latency_bucket(latency))] += 1;
            }
        }
        self.asked
    }

    /// Returns the outcomes for a frame.
    pub(super) fn tell(&self) -> Option<Outcomes> {
        let Some(counts) = self.counts.as_ref().filter(|_| self.asked) else {
            return self.asked.then(Outcomes::default);
        };
        let latencies = (0..).zip(counts.latencies).filter(|(_, count)| *count > 0).collect();
        Some(Outcomes { answered: counts.answered, failed: counts.failed, latencies })
    }
}

impl Default for Counts {
    fn default() -> Self {
        Self { answered: 0, failed: 0, latencies: [0; LATENCY_BUCKETS as usize] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_on_demand_and_never_decrease() {
        let mut tally = Tally::default();
        assert!(!tally.count(true, None) && tally.counts.is_none());
        assert_eq!(tally.tell(), None);
        tally.ask(true);
        assert_eq!(tally.tell(), Some(Outcomes::default()));
        assert!(tally.count(false, Some(Duration::ZERO)));
        assert!(tally.count(true, Some(Duration::from_millis(100))));
        assert!(tally.count(true, Some(Duration::from_secs(86_400))));
        assert!(tally.count(true, None));
        let latencies = vec![(0, 1), (latency_bucket(Duration::from_millis(100)), 1), (LATENCY_BUCKETS - 1, 1)];
        let told = Some(Outcomes { answered: 4, failed: 3, latencies });
        assert_eq!(tally.tell(), told);
        tally.ask(false);
        assert!(!tally.count(true, None));
        assert_eq!(tally.tell(), None);
        tally.ask(true);
        assert_eq!(tally.tell(), told);
    }
}
