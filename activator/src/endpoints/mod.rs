//! Pods: which there are, whether they take connections, and the connections themselves.

mod dial;
mod endpoint;
mod facts;
mod pool;
mod probe;

pub use dial::{DialError, Dialer};
pub use endpoint::Endpoint;
pub use facts::PodFacts;
pub use pool::{Connection, Sent};
pub(crate) use probe::spawn as spawn_probe;
