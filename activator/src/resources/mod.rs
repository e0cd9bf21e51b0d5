//! Resources of this process: open files, memory and threads, and the limits that follow from them.

mod cgroup;
mod descriptors;
mod memory;
mod sizing;
mod threads;

pub use cgroup::MemoryController;
pub use descriptors::{FileLimit, Spare, is_exhausted};
pub use memory::{LimitSource, Memory};
pub use sizing::{Chosen, FREE_FOR_OTHERS, Sizing};
pub use threads::default_threads;
