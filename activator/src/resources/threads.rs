//! Number of worker threads.

use std::num::NonZero;

/// Most threads without `--threads`. A request takes some 20 µs of a core, so four serve more than one pod should get;
/// each has an allocator heap and a share of every buffer.
const MOST: usize = 4;

/// Returns the default number of worker threads: the cores that this process may use, at most four. The CPU limit of
/// the control group and the CPU affinity count.
#[must_use]
pub fn default_threads() -> usize {
    // The standard library reads the quota of cgroup v2 and v1, and the affinity mask.
    std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST)
}
