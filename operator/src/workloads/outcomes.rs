//! How the calls of revisions ended, summed over all activators: what a roll-out is judged by.
//!
//! The scaler fills it from the demand streams, the reconciler reads it. Sums only grow: what a process says is added as
//! the difference to what it said before, so one that is gone or began anew takes nothing back.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use parking_lot::Mutex;
use rouse_crds::demand::{self, latency_bound};
use tokio::time::Instant;

use crate::cluster::key::FunctionKey;

/// Processes whose last word is kept for a revision. One that was forgotten and speaks again is counted twice, so this is
/// far beyond the activators of a cluster.
const PROCESSES: usize = 256;

/// See the module. Bounded by the Functions that are judged (`rollout.abortOn`) and the revisions they are called at.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<HashMap<FunctionKey, HashMap<String, Record>>>);

#[derive(Debug, Default)]
struct Record {
    sum: Figures,
    /// What each process said last, and when.
    last: HashMap<String, (Instant, Figures)>,
}

/// Calls of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Calls that were given to a pod and ended there.
    pub answered: u64,
    /// Those among them that failed.
    pub failed: u64,
    /// Calls by bucket of the time to the head of the answer.
    pub latencies: BTreeMap<u16, u64>,
}

impl Figures {
    fn of(outcomes: &demand::Outcomes) -> Self {
        let demand::Outcomes { answered, failed, latencies } = outcomes;
        Self { answered: *answered, failed: *failed, latencies: latencies.iter().copied().collect() }
    }

    fn add(&mut self, other: &Self) {
        self.answered = self.answered.saturating_add(other.answered);
        self.failed = self.failed.saturating_add(other.failed);
        for (bucket, count) in &other.latencies {
            let sum = self.latencies.entry(*bucket).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// What came since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let latencies = self.latencies.iter().filter_map(|(bucket, count)| {
            let new = count.saturating_sub(before.latencies.get(bucket).copied().unwrap_or(0));
            (new > 0).then_some((*bucket, new))
        });
        Self {
            answered: self.answered.saturating_sub(before.answered),
            failed: self.failed.saturating_sub(before.failed),
            latencies: latencies.collect(),
        }
    }

    /// Calls whose time to the head of the answer is known.
    #[must_use]
    pub fn timed(&self) -> u64 {
        self.latencies.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Calls that certainly took so long or longer: those of the buckets that begin there.
    #[must_use]
    pub fn slower(&self, limit: Duration) -> u64 {
        let begins = |bucket: u16| bucket.checked_sub(1).map_or(Duration::ZERO, latency_bound);
        let slow = self.latencies.iter().filter(|(bucket, _)| begins(**bucket) >= limit);
        slow.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Between which two times the 99th percentile of the times lies; `None` without any.
    #[must_use]
    pub fn p99(&self) -> Option<(Duration, Duration)> {
        let timed = self.timed();
        // All but the slowest hundredth, rounded in favour of the revision.
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
    /// Takes in what the process `process` has counted of `revision` since it began.
    pub fn take(&self, process: &str, function: &FunctionKey, revision: &str, said: &demand::Outcomes) {
        let said = Figures::of(said);
        let mut all = self.0.lock();
        let revisions = match all.get_mut(function) {
            Some(revisions) => revisions,
            None => all.entry(function.clone()).or_default(),
        };
        let record = match revisions.get_mut(revision) {
            Some(record) => record,
            None => revisions.entry(revision.to_owned()).or_default(),
        };
        let before = record.last.get(process).map(|(_, figures)| figures).filter(|before| {
            // Counted from zero by the same process: it had forgotten the revision.
            said.answered >= before.answered && said.failed >= before.failed
        });
        let new = before.map_or_else(|| said.clone(), |before| said.since(before));
        record.sum.add(&new);
        if record.last.len() >= PROCESSES && !record.last.contains_key(process) {
            let oldest = record.last.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| name.clone());
            oldest.map(|name| record.last.remove(&name));
        }
        record.last.insert(process.to_owned(), (Instant::now(), said));
    }

    /// All that is known of `revision`.
    #[must_use]
    pub fn of(&self, function: &FunctionKey, revision: &str) -> Figures {
        self.0.lock().get(function).and_then(|r| r.get(revision)).map(|r| r.sum.clone()).unwrap_or_default()
    }

    /// Forgets revisions that there are no more; without any, the Function.
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

    fn said(answered: u64, failed: u64) -> demand::Outcomes {
        demand::Outcomes { answered, failed, latencies: vec![(3, answered)] }
    }

    fn key() -> FunctionKey {
        FunctionKey::new("ns", "f")
    }

    #[tokio::test]
    async fn sums_grow_over_processes_and_their_restarts() {
        let outcomes = Outcomes::default();
        outcomes.take("a", &key(), "f-00002", &said(10, 1));
        outcomes.take("b", &key(), "f-00002", &said(5, 5));
        outcomes.take("a", &key(), "f-00002", &said(12, 2));
        let sum = outcomes.of(&key(), "f-00002");
        assert_eq!((sum.answered, sum.failed, sum.latencies[&3]), (17, 7, 17));
        // The same frame again, a process that forgot the revision, and one that began anew.
        outcomes.take("a", &key(), "f-00002", &said(12, 2));
        outcomes.take("b", &key(), "f-00002", &said(1, 0));
        outcomes.take("a-again", &key(), "f-00002", &said(2, 0));
        let later = outcomes.of(&key(), "f-00002");
        assert_eq!((later.answered, later.failed), (20, 7));
        assert_eq!(later.since(&sum), Figures { answered: 3, failed: 0, latencies: [(3, 3)].into() });
        assert_eq!(outcomes.of(&key(), "f-00001"), Figures::default());
    }

    #[tokio::test]
    async fn what_is_gone_is_forgotten_and_processes_are_bounded() {
        let outcomes = Outcomes::default();
        for process in 0..PROCESSES + 10 {
            outcomes.take(&process.to_string(), &key(), "f-00002", &said(1, 0));
        }
        assert_eq!(outcomes.0.lock()[&key()]["f-00002"].last.len(), PROCESSES);
        outcomes.take("a", &key(), "f-00001", &said(1, 0));
        outcomes.keep(&key(), |name| name == "f-00001");
        assert_eq!(outcomes.of(&key(), "f-00002"), Figures::default());
        assert_eq!(outcomes.of(&key(), "f-00001").answered, 1);
        outcomes.keep(&key(), |_| false);
        assert!(outcomes.0.lock().is_empty());
    }

    #[test]
    fn the_percentile_is_known_to_a_bucket() {
        let (fast, slow) = (latency_bucket(Duration::from_millis(10)), latency_bucket(Duration::from_secs(1)));
        let of = |fast_calls, slow_calls| Figures {
            answered: fast_calls + slow_calls,
            failed: 0,
            latencies: [(fast, fast_calls), (slow, slow_calls)].into(),
        };
        let within = |figures: &Figures, millis| {
            let (from, to) = figures.p99().unwrap();
            from < Duration::from_millis(millis) && Duration::from_millis(millis) <= to
        };
        assert!(within(&of(99, 1), 10), "one of a hundred is let off");
        assert!(within(&of(98, 2), 1000));
        assert!(within(&of(1, 0), 10));
        assert_eq!(Figures::default().p99(), None);
    }
}
