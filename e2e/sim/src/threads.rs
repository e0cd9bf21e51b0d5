//! Parallel map over a slice, on a fixed number of threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow};

/// Returns the result of `work` for each item, in the order of the items. Work starts in the same order, so the longest
/// should come first.
pub(crate) fn each<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let one = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { return done };
            done.push((index, work(item)));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(one)).collect();
        let mut done = Vec::new();
        for worker in workers {
            done.extend(worker.join().map_err(|_| anyhow!("a thread of the simulation panicked"))?);
        }
        Ok::<_, anyhow::Error>(done)
    })?;
    done.sort_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, made)| made).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_on_any_number_of_threads() {
        let items: Vec<_> = (0..100u64).collect();
        let squares: Vec<_> = items.iter().map(|i| i * i).collect();
        for threads in [0, 1, 2, 7] {
            assert_eq!(each(&items, threads, |i| i * i).unwrap(), squares);
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        assert!(each(&[1, 2, 3], 2, |i| assert_ne!(*i, 2)).is_err());
    }
}
