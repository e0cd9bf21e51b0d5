//! Task machinery: work queue, worker pool, backoff, liveness, startup checks and signals. Knows nothing of Functions.

pub mod backoff;
pub mod progress;
pub mod queue;
pub mod shutdown;
pub mod startup;
pub mod worker;
