//! What is wrong with a request that is refused before the HTTP library sees it, and how it is refused.
//!
//! A refused head never reaches the library. In its place the library is given a request that asks for the refusal, so that
//! the answer comes in its turn after those of earlier requests, is written by the same code as every other answer, and ends
//! the connection.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use http::HeaderName;

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not one that HTTP allows.
    Malformed(&'static str),
    /// Its head or its trailers are more than is taken.
    TooLarge(&'static str),
    /// Its request line is longer than is taken.
    TargetTooLong,
    /// Its head took longer than is waited for.
    Slow,
}

impl Fault {
    /// A sentence for people.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Malformed(detail) | Self::TooLarge(detail) => detail,
            Self::TargetTooLong => "the request line is longer than is taken here",
            Self::Slow => "the head of the request did not come in time",
        }
    }
}

/// What is known of a connection beside its bytes; shared by those who read it and those who answer on it.
#[derive(Debug, Default)]
pub struct HeadVerdict {
    fault: OnceLock<Fault>,
    tunnel: AtomicBool,
    http2: AtomicBool,
    http_10: AtomicBool,
    waiting: AtomicBool,
}

impl HeadVerdict {
    /// What is wrong, if something is.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    /// The first fault is the one that is told.
    pub(crate) fn refuse(&self, fault: Fault) {
        self.fault.get_or_init(|| fault);
    }

    /// From here on the connection does not carry HTTP.
    pub(crate) fn tunnel(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }

    /// The connection speaks HTTP/2.
    pub(crate) fn http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    /// Whether the request that is being read is one of HTTP/1.0.
    pub(crate) fn http_10(&self, is: bool) {
        self.http_10.store(is, Ordering::Relaxed);
    }

    pub(crate) fn is_http_10(&self) -> bool {
        self.http_10.load(Ordering::Relaxed)
    }

    /// Whether a request waits for the head of its answer.
    pub(crate) fn waiting(&self, is: bool) {
        self.waiting.store(is, Ordering::Relaxed);
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// In the request that stands for a refused one. A client that sends it is told of the fault on its own connection, if there
/// is one, and gains nothing.
pub(crate) const REFUSED: HeaderName = HeaderName::from_static("rouse-refused");

/// The request that asks for the refusal. Its method and version are those of the refused one as far as the answer depends
/// on them.
pub(crate) fn stand_in(is_head: bool, is_http_10: bool) -> &'static [u8] {
    match (is_head, is_http_10) {
        (false, false) => b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\nrouse-refused: 1\r\n\r\n",
        (true, false) => b"HEAD / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\nrouse-refused: 1\r\n\r\n",
        (false, true) => b"GET / HTTP/1.0\r\nhost: refused\r\nrouse-refused: 1\r\n\r\n",
        (true, true) => b"HEAD / HTTP/1.0\r\nhost: refused\r\nrouse-refused: 1\r\n\r\n",
    }
}
