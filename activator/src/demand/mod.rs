//! Demand: counts requests per revision, and streams the counts to the autoscaler.

mod ledger;
mod metrics;
mod outcomes;
mod pods;
mod publisher;
mod stream;

pub use ledger::{Account, Ledger, Reading, Report};
pub use publisher::Publisher;
pub use stream::Frames;
