//! How many requests this pod has seen, and how many are in it at once.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use crate::bodies::Answer;

/// Counts of requests since the start.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    seen: AtomicU64,
    in_flight: AtomicU64,
    most: AtomicU64,
}

impl Stats {
    /// Counts a request that has arrived; it is in flight until the last guard goes.
    pub(crate) fn arrive(self: &Arc<Self>) -> Arc<InFlight> {
        let number = self.seen.fetch_add(1, Relaxed) + 1;
        let together = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(together, Relaxed);
        Arc::new(InFlight { stats: Arc::clone(self), number, together })
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "requests": self.seen.load(Relaxed),
            "in_flight": self.in_flight.load(Relaxed),
            "most_in_flight": self.most.load(Relaxed),
        })
    }
}

/// A request that is in this pod.
#[derive(Debug)]
pub(crate) struct InFlight {
    stats: Arc<Stats>,
    /// Its number, from 1.
    pub(crate) number: u64,
    /// How many there were when it came, itself included.
    pub(crate) together: u64,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stats.in_flight.fetch_sub(1, Relaxed);
    }
}

/// An answer's body that keeps its request in flight until it has ended or been given up.
pub(crate) struct Counted {
    pub(crate) body: Answer,
    /// Nothing for what is not counted.
    pub(crate) _in_flight: Option<Arc<InFlight>>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_at_once_is_remembered() {
        let stats = Arc::new(Stats::default());
        let first = stats.arrive();
        let second = stats.arrive();
        assert_eq!((second.number, second.together), (2, 2));
        drop(first);
        let third = stats.arrive();
        assert_eq!((third.number, third.together), (3, 2));
        drop((second, third));
        assert_eq!(stats.to_json(), serde_json::json!({"requests": 3, "in_flight": 0, "most_in_flight": 2}));
    }
}
