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
    /// Time from the beginning of a connection to the first byte of its first request.
    pub first_request: Duration,
    /// Idle timeout of a connection between requests.
    pub idle: Duration,
    /// Time in which a client has to take a part of a response that is ready for it.
    pub send: Duration,
    /// Time for which a client is waited for that sends nothing of a request body; zero for ever.
    pub body_time: Duration,
    /// Bytes per second of a request body that make up for the time they took; zero disables the limit.
    pub body_rate: u64,
    /// Age at which a connection is closed, after its requests.
    pub age: Option<Duration>,
    /// Maximum number of concurrent requests on one HTTP/2 connection.
    pub streams: u32,
    /// Maximum number of HTTP/2 streams that a client may reset before they are accepted, and of streams that were
    /// reset after a protocol error. One more ends the connection.
    pub resets: usize,
}
