//! Demand: counting requests per revision, and telling the autoscaler.

mod ledger;
mod metrics;
mod outcomes;
mod pods;
mod stream;

pub use ledger::{Account, Ledger, Reading};
pub use stream::Frames;
