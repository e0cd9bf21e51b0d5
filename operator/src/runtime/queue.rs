//! A queue of keys to work on: each key stands in it once, is worked on by one worker at a time, and can be asked for
//! at a later time.
//!
//! It is bounded by the number of keys that exist, for a key that is already there is not added again.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    hash::Hash,
};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// See the module.
#[derive(Debug)]
pub struct WorkQueue<K> {
    state: Mutex<State<K>>,
    changed: Notify,
}

#[derive(Debug)]
struct State<K> {
    /// To be worked on now, in order.
    ready: VecDeque<K>,
    /// What is in `ready`.
    queued: HashSet<K>,
    /// Being worked on; `true` if it was asked for again meanwhile.
    running: HashMap<K, bool>,
    /// To be worked on later, by time, and the time of each key.
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
    /// Asks for `key` to be worked on as soon as a worker is free, and once more if it is being worked on now.
    pub fn add(&self, key: K) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// The next key, when there is one. The caller owes a [`Self::done`] for it.
    ///
    /// Cancel-safe: a key is taken in the same poll that returns it.
    pub async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let next_due = {
                let mut state = self.state.lock();
                state.wake(Instant::now());
                if let Some(key) = state.take() {
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

    /// Ends the work on `key`, and asks for it again at `again` if that is given.
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

    /// Keys that wait to be worked on now.
    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    /// Whether nothing waits to be worked on now.
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

    /// Moves what is due at `now` to those that are ready.
    fn wake(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.later.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        // Whatever it was to be woken for is looked at now; the worker says when next.
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
    async fn a_key_stands_once_and_runs_once_at_a_time() {
        let queue = WorkQueue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.next().await, "a");
        assert_eq!(queue.next().await, "b");
        queue.add("a");
        assert!(queue.next().now_or_never().is_none(), "a runs, so it is not handed out again");
        queue.done(&"a", None);
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", None);
        queue.done(&"b", None);
        assert!(queue.is_empty());
        assert!(queue.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_key_comes_at_its_time() {
        let queue = WorkQueue::default();
        let start = Instant::now();
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", Some(start + Duration::from_secs(30)));
        assert_eq!(queue.next().await, "a");
        assert_eq!(start.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_times_holds_and_work_before_it_clears_it() {
        let queue = WorkQueue::default();
        let start = Instant::now();
        queue.add("a");
        queue.next().await;
        queue.done(&"a", Some(start + Duration::from_secs(30)));
        queue.add("a");
        assert_eq!(queue.next().await, "a");
        queue.done(&"a", None);
        let later = tokio::time::timeout(Duration::from_secs(100), queue.next()).await;
        assert!(later.is_err(), "the time that was asked for before is no longer meant");
    }

    #[tokio::test(start_paused = true)]
    async fn an_add_wakes_one_who_waits() {
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
