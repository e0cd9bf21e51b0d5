//! The way of a request: route, admit, wake, pick, forward.

mod affinity;
mod alarm;
mod body;
mod chain;
mod copying;
mod forward;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod hygiene;
mod mirror;
mod peer;
mod trace;
mod upgrade;

pub use body::{Body, RequestBody};
pub use chain::{Gone, Proxy};
pub use peer::Peer;
