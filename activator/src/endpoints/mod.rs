//! Pods: which there are, whether they take connections, and the connections themselves.

mod dial;
mod endpoint;
mod facts;
mod pool;
mod probe;
mod round_trip;
mod turns;

pub use dial::{DialError, Dialer};
pub use endpoint::Endpoint;
pub use facts::PodFacts;
pub use pool::{Connection, Sent};
pub use probe::Probing;
pub(crate) use probe::spawn as spawn_probe;
