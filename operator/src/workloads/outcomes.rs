//! Results of requests for each revision, summed over all activators. Rollouts use them for analysis.
//!
//! The scaler records them from the demand streams, and the reconciler reads them. Sums never decrease: each report of
//! a process is added as the difference to its previous report, so a process that stops or restarts removes nothing.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use parking_lot::Mutex;
use rouse_crds::demand::{self, latency_bound};
use tokio::time::Instant;

use crate::cluster::key::FunctionKey;

/// Maximum number of processes whose last report is kept for a revision. A process that was dropped and reports again
/// is counted twice, so this is far more than a cluster has activators.
const PROCESSES: usize = 256;

/// Results of requests by Function and revision. Bounded by the Functions with `rollout.abortOn` and their revisions.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<HashMap<FunctionKey, HashMap<String, Record>>>);

#[derive(Debug, Default)]
struct Record {
    sum: RequestStats,
    /// Last report of each process, and its time.
    last: HashMap<String, (Instant, RequestStats)>,
}

/// Request statistics of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestStats {
    /// Requests that were forwarded to a pod and have ended.
    pub completed: u64,
    /// Completed requests that failed.
    pub failed: u64,
    /// Completed requests by bucket of the time to the response headers.
    pub latencies: BTreeMap<u16, u64>,
}

impl RequestStats {
    fn of(outcomes: &demand::Outcomes) -> Self {
        let demand::Outcomes { answered, failed, latencies } = outcomes;
        Self { completed: *answered, failed: *failed, latencies: latencies.iter().copied().collect() }
    }

    fn add(&mut self, other: &Self) {
        self.completed = self.completed.saturating_add(other.completed);
        self.failed = self.failed.saturating_add(other.failed);
        for (bucket, count) in &other.latencies {
            let sum = self.latencies.entry(*bucket).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// Returns the statistics since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let latencies = self.latencies.iter().filter_map(|(bucket, count)| {
            let new = count.saturating_sub(before.latencies.get(bucket).copied().unwrap_or(0));
            (new > 0).then_some((*bucket, new))
        });
        Self {
            completed: self.completed.saturating_sub(before.completed),
            failed: self.failed.saturating_sub(before.failed),
            latencies: latencies.collect(),
        }
    }

    /// Returns the number of requests with a known time to the response headers.
    #[must_use]
    pub fn timed(&self) -> u64 {
        self.latencies.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Returns the number of requests that certainly took `limit` or longer: those in buckets that start at or above
    /// it.
    #[must_use]
    pub fn slower(&self, limit: Duration) -> u64 {
        let start = |bucket: u16| bucket.checked_sub(1).map_or(Duration::ZERO, latency_bound);
        let slow = self.latencies.iter().filter(|(bucket, _)| start(**bucket) >= limit);
        slow.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Returns the bounds of the bucket with the 99th percentile; `None` without requests.
    #[must_use]
    pub fn p99(&self) -> Option<(Duration, Duration)> {
        let timed = self.timed();
        // All but the slowest 1 %, rounded in favour of the revision.
        let rank = timed - timed / 100;
        let mut seen = 0u64;
        let bucket = self.latencies.iter().find_map(|(bucket, count)| {
            seen = seen.saturating_add(*count);
            (seen >= rank && *count > 0).then_some(*bucket)
        })?;
        let from = bucket.checked_sub(1).map_or(Duration::ZERO, latency_bound);
        Some((from, latency_bound(bucket)))
    }
}

impl Outcomes {
    /// Records the counters of `revision` that `process` has accumulated since its start.
    pub fn take(&self, process: &str, function: &FunctionKey, revision: &str, counters: &demand::Outcomes) {
        let report = RequestStats::of(counters);
        let mut all = self.0.lock();
        let revisions = match all.get_mut(function) {
            Some(revisions) => revisions,
            None => all.entry(function.clone()).or_default(),
        };
        let record = match revisions.get_mut(revision) {
            Some(record) => record,
            None => revisions.entry(revision.to_owned()).or_default(),
        };
        let before = record.last.get(process).map(|(_, stats)| stats).filter(|before| {
            // The process restarted its counters, because it had forgotten the revision.
            report.completed >= before.completed && report.failed >= before.failed
        });
        let new = before.map_or_else(|| report.clone(), |before| report.since(before));
        record.sum.add(&new);
        if record.last.len() >= PROCESSES && !record.last.contains_key(process) {
            let oldest = record.last.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| name.clone());
            oldest.map(|name| record.last.remove(&name));
        }
        record.last.insert(process.to_owned(), (Instant::now(), report));
    }

    /// Returns the statistics of `revision`.
    #[must_use]
    pub fn of(&self, function: &FunctionKey, revision: &str) -> RequestStats {
        self.0.lock().get(function).and_then(|r| r.get(revision)).map(|r| r.sum.clone()).unwrap_or_default()
    }

    /// Drops revisions that do not exist any more, and the Function when none is left.
    pub fn keep(&self, function: &FunctionKey, is_there: impl Fn(&str) -> bool) {
        let mut all = self.0.lock();
        if let Some(revisions) = all.get_mut(function) {
            revisions.retain(|name, _| is_there(name));
            if revisions.is_empty() {
                all.remove(function);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rouse_crds::demand::latency_bucket;

    fn report(answered: u64, failed: u64) -> demand::Outcomes {
        demand::Outcomes { answered, failed, latencies: vec![(3, answered)] }
    }

    fn key() -> FunctionKey {
        FunctionKey::new("ns", "f")
    }

    #[tokio::test]
    async fn sums_grow_over_processes_and_their_restarts() {
        let outcomes = Outcomes::default();
        outcomes.take("a", &key(), "f-00002", &report(10, 1));
        outcomes.take("b", &key(), "f-00002", &report(5, 5));
        outcomes.take("a", &key(), "f-00002", &report(12, 2));
        let sum = outcomes.of(&key(), "f-00002");
        assert_eq!((sum.completed, sum.failed, sum.latencies[&3]), (17, 7, 17));
        // A repeated frame, a process that forgot the revision, and a restarted process.
        outcomes.take("a", &key(), "f-00002", &report(12, 2));
        outcomes.take("b", &key(), "f-00002", &report(1, 0));
        outcomes.take("a-again", &key(), "f-00002", &report(2, 0));
        let later = outcomes.of(&key(), "f-00002");
        assert_eq!((later.completed, later.failed), (20, 7));
        assert_eq!(later.since(&sum), RequestStats { completed: 3, failed: 0, latencies: [(3, 3)].into() });
        assert_eq!(outcomes.of(&key(), "f-00001"), RequestStats::default());
    }

    #[tokio::test]
    async fn drops_deleted_revisions_and_bounds_processes() {
        let outcomes = Outcomes::default();
        for process in 0..PROCESSES + 10 {
            outcomes.take(&process.to_string(), &key(), "f-00002", &report(1, 0));
        }
        assert_eq!(outcomes.0.lock()[&key()]["f-00002"].last.len(), PROCESSES);
        outcomes.take("a", &key(), "f-00001", &report(1, 0));
        outcomes.keep(&key(), |name| name == "f-00001");
        assert_eq!(outcomes.of(&key(), "f-00002"), RequestStats::default());
        assert_eq!(outcomes.of(&key(), "f-00001").completed, 1);
        outcomes.keep(&key(), |_| false);
        assert!(outcomes.0.lock().is_empty());
    }

    #[test]
    fn p99_is_accurate_to_a_bucket() {
        let (fast, slow) = (latency_bucket(Duration::from_millis(10)), latency_bucket(Duration::from_secs(1)));
        let of = |fast_calls, slow_calls| RequestStats {
            completed: fast_calls + slow_calls,
            failed: 0,
            latencies: [(fast, fast_calls), (slow, slow_calls)].into(),
        };
        let within = |stats: &RequestStats, millis| {
            let (from, to) = stats.p99().unwrap();
            from < Duration::from_millis(millis) && Duration::from_millis(millis) <= to
        };
        assert!(within(&of(99, 1), 10), "the slowest of a hundred does not count");
        assert!(within(&of(98, 2), 1000));
        assert!(within(&of(1, 0), 10));
        assert_eq!(RequestStats::default().p99(), None);
    }
}
