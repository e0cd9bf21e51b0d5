//! Endpoints: pods with their addresses, readiness probes and pooled connections.

mod announced;
mod connection;
mod dial;
mod endpoint;
mod grpc_health;
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
mod readiness_check;
mod round_trip;
mod watch_age;

pub use connection::{Connection, Sent};
pub use dial::{DialError, Dialer};
pub use endpoint::Endpoint;
pub use loss::Loss;
pub use pod_facts::PodFacts;
pub use probe::Prober;
pub(crate) use probe::{ProbeObserver, ProbeRequest};
pub use watch_age::WatchAge;
