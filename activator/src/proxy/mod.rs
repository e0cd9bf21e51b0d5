//! The request chain: route, admit, wake, pick, forward.

mod affinity;
mod chain;
mod forward;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod grpc_timeout;
mod headers;
mod in_pod;
mod list_header;
mod max_forwards;
mod mirror;
mod response_body;
mod response_head;
mod server_timing;
mod trace;
mod upgrade;
mod validate;
mod via;

pub use chain::{ClientGone, Proxy};
pub use response_body::Body;
