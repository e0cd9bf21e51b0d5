//! The downstream side: state of a client connection that the server (`serve`) and the request chain (`proxy`) share.

mod connection_state;
mod connection_timer;
mod peer;

pub use connection_state::{ConnectionState, Fault};
pub(crate) use connection_state::{REJECTED_HEADER, placeholder};
pub(crate) use connection_timer::ConnectionTimer;
pub use peer::Peer;

/// HTTP/2: bytes of a request body that a client may send before anybody reads them. A queued request counts as many
/// against the caps.
pub(crate) const STREAM_WINDOW: u32 = 16 << 10;
