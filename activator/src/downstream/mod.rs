//! What is known of a client's connection, shared by those who read it and those who answer on it.

mod alarm;
mod fault;
mod peer;

pub(crate) use alarm::Alarm;
pub use fault::{Fault, HeadVerdict};
pub(crate) use fault::{REFUSED, stand_in};
pub use peer::Peer;

/// What a client may send of a body that nobody reads yet, by HTTP/2. It is what such a request counts for in the caps on what
/// waits.
pub(crate) const STREAM_WINDOW: u32 = 16 << 10;
