//! Demand: counts requests per revision, and streams the counts to the autoscaler.

mod ledger;
mod metrics;
mod outcomes;
mod pods;
mod stream;

pub use ledger::{Account, Ledger, Reading, Report};
pub use stream::Frames;
