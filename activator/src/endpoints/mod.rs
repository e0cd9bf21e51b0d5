//! Endpoints: pods with their addresses, readiness probes and pooled connections.

mod announced;
mod connection;
mod dial;
mod endpoint;
mod http1_connection;
mod http2;
mod http2_connect;
mod keep_alive;
mod loss;
mod pod_facts;
mod pod_stream;
mod pool;
mod probe;
mod probe_limiter;
mod round_trip;

pub use connection::{Connection, Sent};
pub use dial::{DialError, Dialer};
pub use endpoint::Endpoint;
pub use loss::Loss;
pub use pod_facts::PodFacts;
pub(crate) use probe::ProbeObserver;
pub use probe::Prober;
