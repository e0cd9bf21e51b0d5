//! The way of a request: route, admit, wake, pick, forward.

mod alarm;
mod body;
mod chain;
mod forward;
mod headers;
mod hygiene;
mod peer;
mod trace;
mod upgrade;

pub use body::{Body, RequestBody};
pub use chain::{Gone, Proxy};
pub use peer::Peer;
