//! Limits of a listener.

use std::time::Duration;

/// Limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of concurrent connections, including tunnels. Further ones wait to be accepted.
    pub connections: usize,
    /// Maximum size of a request head, and of its trailers, in bytes.
    pub head_bytes: usize,
    /// Maximum number of headers, and of trailers.
    pub headers: usize,
    /// Maximum length of a request line in bytes.
    pub request_line: usize,
    /// Timeout of a head, from its first byte to its last.
    pub head_time: Duration,
    /// Idle timeout of an HTTP/1 connection between requests.
    pub idle: Duration,
    /// Maximum number of concurrent requests on one HTTP/2 connection.
    pub streams: u32,
    /// Maximum number of HTTP/2 streams that a client may reset before they are accepted, and of streams that were
    /// reset after a protocol error. One more ends the connection.
    pub resets: usize,
}
