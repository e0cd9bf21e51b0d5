//! State of a client connection, and the rejection of a request whose head is invalid.
//!
//! An invalid head never reaches the HTTP library. In its place the library gets a placeholder request that asks for
//! the rejection. So the response comes in order after those of earlier requests, is written by the same code as every
//! other response, and closes the connection.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::HeaderName;

use super::upload_window::{StreamGrants, UploadWindow};

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not allowed by HTTP.
    Malformed(&'static str),
    /// The head or the trailers exceed a limit.
    TooLarge(&'static str),
    /// The request line exceeds its limit.
    TargetTooLong,
    /// The head was not complete in time.
    Slow,
}

impl Fault {
    /// Returns a sentence for the response.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Malformed(detail) | Self::TooLarge(detail) => detail,
            Self::TargetTooLong => "the request line is too long",
            Self::Slow => "the request header did not arrive in time",
        }
    }
}

/// State of a connection, shared by the tasks that read it and those that respond on it.
#[derive(Debug, Default)]
pub struct ConnectionState {
    fault: OnceLock<Fault>,
    tunnel: AtomicBool,
    http2: AtomicBool,
    http_10: AtomicBool,
    awaiting_response: AtomicBool,
    /// In milliseconds; zero is none.
    idle: AtomicU64,
    uploads: OnceLock<Arc<StreamGrants>>,
}

impl ConnectionState {
    /// Returns the fault, if there is one.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    /// Sets the fault; the first one stays.
    pub(crate) fn set_fault(&self, fault: Fault) {
        self.fault.get_or_init(|| fault);
    }

    /// Marks the connection as a tunnel: it carries no HTTP any more.
    pub(crate) fn set_tunnel(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }

    /// Sets the windows of an HTTP/2 connection.
    pub(crate) fn set_uploads(&self, uploads: Arc<StreamGrants>) {
        self.uploads.get_or_init(|| uploads);
    }

    /// Returns the window of a stream whose body is about to be read.
    pub(crate) fn upload(&self, stream: u32) -> Option<UploadWindow> {
        self.uploads.get().map(|uploads| uploads.stream(stream))
    }

    /// Marks the connection as HTTP/2.
    pub(crate) fn set_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    /// Sets whether the current request is HTTP/1.0.
    pub(crate) fn set_http_10(&self, is: bool) {
        self.http_10.store(is, Ordering::Relaxed);
    }

    pub(crate) fn is_http_10(&self) -> bool {
        self.http_10.load(Ordering::Relaxed)
    }

    /// Sets whether a request waits for the head of its response.
    pub(crate) fn set_awaiting_response(&self, is: bool) {
        self.awaiting_response.store(is, Ordering::Relaxed);
    }

    pub(crate) fn is_awaiting_response(&self) -> bool {
        self.awaiting_response.load(Ordering::Relaxed)
    }

    /// Sets the idle timeout of the current response or tunnel, of an HTTP/1 connection.
    pub(crate) fn set_idle_timeout(&self, idle: Option<Duration>) {
        let idle = idle.map_or(0, |idle| u64::try_from(idle.as_millis()).unwrap_or(u64::MAX).max(1));
        self.idle.store(idle, Ordering::Relaxed);
    }

    pub(crate) fn idle_timeout(&self) -> Duration {
        match self.idle.load(Ordering::Relaxed) {
            0 => Duration::MAX,
            idle => Duration::from_millis(idle),
        }
    }
}

/// Header of the placeholder request. A client that sends it gets the fault of its own connection, if there is one, and
/// gains nothing.
pub(crate) const REJECTED_HEADER: HeaderName = HeaderName::from_static("rouse-refused");

/// Returns the placeholder request. Its method and version are those of the invalid one as far as the response depends
/// on them.
pub(crate) fn placeholder(is_head: bool, is_http_10: bool) -> &'static [u8] {
    match (is_head, is_http_10) {
        (false, false) => b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\nrouse-refused: 1\r\n\r\n",
        (true, false) => b"HEAD / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\nrouse-refused: 1\r\n\r\n",
        (false, true) => b"GET / HTTP/1.0\r\nhost: refused\r\nrouse-refused: 1\r\n\r\n",
        (true, true) => b"HEAD / HTTP/1.0\r\nhost: refused\r\nrouse-refused: 1\r\n\r\n",
    }
}
