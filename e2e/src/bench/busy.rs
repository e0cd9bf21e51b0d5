//! CPU load on every core, such as a compiler causes beside the cluster.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::time::Instant;

/// One busy thread per core. They stop when this is dropped, at the latest at the deadline.
#[derive(Debug)]
pub(super) struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// Starts the threads, at the priority of this process.
    pub(super) fn start(most: Duration) -> Self {
        let (stop, deadline) = (Arc::<AtomicBool>::default(), Instant::now() + most);
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let one = |_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || compute(&stop, deadline))
        };
        let threads = (0..cores).map(one).collect();
        Self { stop, threads }
    }

    /// Stops the load and returns whether it was still running.
    pub(super) fn stop(self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Takes less than a millisecond.
            drop(thread.join());
        }
    }
}

fn compute(stop: &AtomicBool, deadline: Instant) {
    let mut number = 1_u64;
    while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
        for _ in 0..10_000 {
            number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stops_on_request_and_at_its_deadline() {
        let busy = Busy::start(Duration::from_secs(3600));
        let stop = Arc::clone(&busy.stop);
        assert!(busy.stop());
        // The threads dropped their references.
        assert_eq!(Arc::strong_count(&stop), 1);
        let mut over = Busy::start(Duration::ZERO);
        for thread in over.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}
