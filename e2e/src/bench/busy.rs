//! Load on every core, as a compiler beside the cluster makes it.

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

/// One thread per core that computes without a pause. Ends when this is dropped, and at its deadline at the latest.
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

    /// Ends the load and returns whether it lasted until now.
    pub(super) fn stop(self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It computes for less than a millisecond more.
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
    fn it_ends_when_told_and_at_its_deadline() {
        let busy = Busy::start(Duration::from_secs(3600));
        let stop = Arc::clone(&busy.stop);
        assert!(busy.stop());
        // Only the threads held it beside this.
        assert_eq!(Arc::strong_count(&stop), 1);
        let mut over = Busy::start(Duration::ZERO);
        for thread in over.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}
