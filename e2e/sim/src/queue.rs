//! Event queue of the simulation.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use crate::micros::Micros;

/// Events ordered by time, and by insertion order at the same time, so that runs are reproducible.
#[derive(Debug)]
pub(crate) struct EventQueue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    put: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Micros,
    nth: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.nth).cmp(&(other.at, other.nth))
    }
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), put: 0 }
    }
}

impl<E> EventQueue<E> {
    pub(crate) fn put(&mut self, at: Micros, event: E) {
        self.put += 1;
        self.heap.push(Reverse(Entry { at, nth: self.put, event }));
    }

    /// Returns the time of the next event.
    pub(crate) fn next_at(&self) -> Option<Micros> {
        self.heap.peek().map(|Reverse(entry)| entry.at)
    }

    pub(crate) fn take(&mut self) -> Option<(Micros, E)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_queue_has_no_event() {
        let mut queue = EventQueue::<u8>::default();
        assert_eq!((queue.next_at(), queue.take()), (None, None));
    }

    proptest! {
        #[test]
        fn events_are_ordered_by_time_and_then_by_insertion(times in prop::collection::vec(0u64..20, 0..100)) {
            let mut queue = EventQueue::default();
            for (nth, at) in times.iter().enumerate() {
                queue.put(*at, nth);
            }
            let mut expected: Vec<_> = times.iter().copied().enumerate().map(|(nth, at)| (at, nth)).collect();
            expected.sort_unstable();
            let mut seen = Vec::new();
            while let Some(at) = queue.next_at() {
                let (taken, event) = queue.take().unwrap();
                prop_assert_eq!(taken, at);
                seen.push((taken, event));
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
