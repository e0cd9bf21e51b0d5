//! Request counters of this pod.

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

use crate::bodies::ResponseBody;

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    seen: AtomicU64,
    in_flight: AtomicU64,
    most: AtomicU64,
}

impl Stats {
    /// Counts a request. It is in flight until the last guard is dropped.
    pub(crate) fn arrive(self: &Arc<Self>) -> Arc<InFlight> {
        let number = self.seen.fetch_add(1, Relaxed) + 1;
        let concurrent = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(concurrent, Relaxed);
        Arc::new(InFlight { stats: Arc::clone(self), number, concurrent })
    }

    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "requests": self.seen.load(Relaxed),
            "in_flight": self.in_flight.load(Relaxed),
            "most_in_flight": self.most.load(Relaxed),
        })
    }
}

/// Guard of a request in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    stats: Arc<Stats>,
    /// Its number, from 1.
    pub(crate) number: u64,
    /// Number of requests in flight at its arrival, including itself.
    pub(crate) concurrent: u64,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stats.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A response body that keeps its request in flight until it ends or is dropped.
pub(crate) struct Counted {
    pub(crate) body: ResponseBody,
    /// `None` for requests that are not counted.
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
    fn the_highest_concurrency_is_kept() {
        let stats = Arc::new(Stats::default());
        let first = stats.arrive();
        let second = stats.arrive();
        assert_eq!((second.number, second.concurrent), (2, 2));
        drop(first);
        let third = stats.arrive();
        assert_eq!((third.number, third.concurrent), (3, 2));
        drop((second, third));
        assert_eq!(stats.to_json(), serde_json::json!({"requests": 3, "in_flight": 0, "most_in_flight": 2}));
    }
}
