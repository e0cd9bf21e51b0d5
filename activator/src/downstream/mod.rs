//! The downstream side: state of a client connection that the server (`serve`) and the request chain (`proxy`) share.

mod connection_state;
mod connection_timer;
mod lazy_timer;
mod peer;
mod stream_task;
mod trusted_proxies;
mod upload_window;

pub use connection_state::{ConnectionState, Fault};
pub(crate) use connection_state::{REJECTED_HEADER, placeholder};
pub(crate) use connection_timer::ConnectionTimer;
pub(crate) use lazy_timer::LazyTimer;
pub use peer::Peer;
pub(crate) use stream_task::{StreamTask, record_body_poll};
pub use trusted_proxies::{BadNetwork, TrustedProxies};

/// HTTP/1: bytes of a request that are read before anybody asks for its body, at most. A queued request counts as many
/// against the caps.
pub(crate) const READ_AHEAD: usize = 8 << 10;
pub(crate) use upload_window::{CONNECTION_BUDGET, LARGEST_STREAM_WINDOW, StreamGrants, UploadWindow, WindowBudget};

/// The stream of an HTTP/2 request with a body, as an extension of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UploadStream(pub(crate) u32);

/// HTTP/2: bytes of a request body that a client may send before anybody reads them. A queued request counts as many
/// against the caps.
pub(crate) const STREAM_WINDOW: u32 = 16 << 10;
