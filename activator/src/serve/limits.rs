//! What one listener allows.

use std::time::Duration;

/// What one listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once, tunnels among them. The next ones wait to be accepted.
    pub connections: usize,
    /// Bytes of a request's head, and of the trailers after its body.
    pub head_bytes: usize,
    /// Headers of a request, and trailers.
    pub headers: usize,
    /// Bytes of a request line.
    pub request_line: usize,
    /// How long a head may take from its first byte to its last.
    pub head_time: Duration,
    /// How long an HTTP/1 connection may be without a request.
    pub idle: Duration,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// Requests that an HTTP/2 client may have begun and reset before anybody looked at them, and those that were reset
    /// because the client broke the protocol. One more ends the connection.
    pub resets: usize,
}
