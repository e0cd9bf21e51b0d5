//! Work queue that deduplicates keys, runs each key in one worker at a time, and supports delayed keys.
//!
//! Bounded by the number of distinct keys.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Work queue of keys.
#[derive(Debug)]
pub struct WorkQueue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<K> {
    /// Keys that are due, in order.
    ready: VecDeque<K>,
    /// Keys in `ready`.
    queued: HashSet<K>,
    /// Keys that a worker is processing; `true` if the key was added again meanwhile.
    running: HashMap<K, bool>,
    /// Delayed keys by time, and the time of each key.
    later: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash + Ord> Default for WorkQueue<K> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            queued: HashSet::new(),
            running: HashMap::new(),
            later: BTreeSet::new(),
            due: HashMap::new(),
        };
        Self { state: Mutex::new(state), changed: Notify::new() }
    }
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    /// Adds `key`. If a worker is processing it, it is processed again afterwards.
    pub fn add(&self, key: K) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// Waits for the next key. The caller must call [`Self::done`] for it.
    ///
    /// Cancel-safe: a key is removed in the same poll that returns it.
    pub async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let next_due = {
                let mut state = self.state.lock();
                state.promote_due(Instant::now());
                if let Some(key) = state.pop() {
                    return key;
                }
                state.later.first().map(|(at, _)| *at)
            };
            match next_due {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Marks `key` as processed, and adds it again at the time `again`, if given.
    pub fn done(&self, key: &K, again: Option<Instant>) {
        {
            let mut state = self.state.lock();
            if state.running.remove(key) == Some(true) {
                state.add(key.clone());
            }
            if let Some(at) = again {
                state.schedule(key.clone(), at);
            }
        }
        self.changed.notify_one();
    }

    /// Returns the number of due keys.
    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// Returns whether no key is due.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn add(&mut self, key: K) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = true;
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn schedule(&mut self, key: K, at: Instant) {
        if let Some(earlier) = self.due.get(&key).copied() {
            if earlier <= at {
                return;
            }
            self.later.remove(&(earlier, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    /// Moves the delayed keys that are due at `now` to the ready keys.
    fn promote_due(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.later.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn pop(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        // This run replaces a scheduled one; the worker decides about the next.
        if let Some(at) = self.due.remove(&key) {
            self.later.remove(&(at, key.clone()));
        }
        self.running.insert(key.clone(), false);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use futures::FutureExt as _;

    #[tokio::test]
    async fn a_key_is_queued_once_and_runs_in_one_worker() {
        let queue = WorkQueue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.next().await, "b");
        queue.add("a");
        assert!(queue.next().now_or_never().is_none(), "a key that is being processed is not returned");
        queue.done(&"a", None);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", None);
        queue.done(&"b", None);
        assert!(queue.is_empty());
        assert!(queue.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_key_is_returned_at_its_time() {
        let queue = WorkQueue::default();
        let start = Instant::now();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Some(start + Duration::from_secs(30)));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn processing_a_key_clears_its_delay() {
        let queue = WorkQueue::default();
        let start = Instant::now();
        queue.add("a");
        queue.next().await;
        queue.done(&"a", Some(start + Duration::from_secs(30)));
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", None);
        let later = tokio::time::timeout(Duration::from_secs(100), queue.next()).await;
        assert!(later.is_err(), "the earlier schedule was cleared");
    }

    #[tokio::test(start_paused = true)]
    async fn add_wakes_a_waiting_worker() {
        let queue = std::sync::Arc::new(WorkQueue::default());
        let waiting = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await }
        });
        tokio::task::yield_now().await;
        queue.add("a");
        assert_eq!(waiting.await.unwrap(), "a");
    }
}
