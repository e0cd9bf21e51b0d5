//! Pods: which there are, whether they take connections, and the connections themselves.

mod connection;
mod dial;
mod endpoint;
mod facts;
mod pool;
mod probe;
mod probe_limiter;
mod round_trip;

pub use connection::{Connection, Sent};
pub use dial::{DialError, Dialer};
pub use endpoint::Endpoint;
pub use facts::PodFacts;
pub(crate) use probe::Probed;
pub use probe::Prober;
