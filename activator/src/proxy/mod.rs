//! The way of a request: route, admit, wake, pick, forward.

mod affinity;
mod chain;
mod forward;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod hygiene;
mod mirror;
mod response_body;
mod server_timing;
mod trace;
mod upgrade;

pub use chain::{Gone, Proxy};
pub use response_body::Body;
