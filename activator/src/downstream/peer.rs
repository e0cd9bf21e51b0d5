//! The client of a connection.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use tokio::time::Instant;

use super::{connection_state::ConnectionState, connection_timer::ConnectionTimer};

/// The client of a connection.
#[derive(Debug)]
pub struct Peer {
    /// State of the connection.
    pub(crate) state: Arc<ConnectionState>,
    /// Maximum number of headers of a request.
    pub(crate) headers: usize,
    /// Whether the connection uses TLS that ends in this process.
    pub(crate) secure: bool,
    /// Time for which a client is waited for that sends nothing of a request body.
    pub(crate) body_time: Duration,
    /// Bytes per second of a request body that make up for the time they took.
    pub(crate) body_rate: u64,
    /// When the connection is to be closed because of its age.
    expires: Option<Instant>,
    /// Whether it is a trusted proxy: what it states about the origin of a request is passed on.
    pub(crate) trusted: bool,
    /// IP address as a header value; written once for all requests of the connection.
    text: HeaderValue,
    quoted: Box<str>,
    /// Timer for the timeouts of its requests.
    pub(crate) timer: ConnectionTimer,
}

impl Peer {
    /// Creates the client at this address.
    #[must_use]
    pub fn new(address: SocketAddr, state: Arc<ConnectionState>, headers: usize) -> Self {
        let address = address.ip().to_canonical();
        let text = address.to_string();
        let quoted = match address {
            IpAddr::V4(_) => text.clone(),
            IpAddr::V6(_) => format!("\"[{text}]\""),
        };
        // Digits and colons are valid in a header.
        let text = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"));
        Self {
            state,
            headers,
            secure: false,
            body_time: Duration::ZERO,
            body_rate: 0,
            expires: None,
            trusted: false,
            text,
            quoted: quoted.into(),
            timer: ConnectionTimer::default(),
        }
    }

    /// Sets whether the connection uses TLS that ends in this process.
    #[must_use]
    pub(crate) fn with_tls(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Sets the minimum rate of request bodies; zero is none.
    #[must_use]
    pub(crate) fn with_body_limits(mut self, time: Duration, rate: u64) -> Self {
        (self.body_time, self.body_rate) = (time, rate);
        self
    }

    /// Sets the time after which the connection is to be closed.
    #[must_use]
    pub(crate) fn with_age(mut self, age: Option<Duration>) -> Self {
        self.expires = age.map(|age| Instant::now() + age);
        self
    }

    /// Whether the connection is to be closed because of its age.
    pub(crate) fn is_expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= Instant::now())
    }

    /// Sets whether the client is a trusted proxy.
    #[must_use]
    pub(crate) fn with_trust(mut self, trusted: bool) -> Self {
        self.trusted = trusted;
        self
    }

    /// Returns the IP address as a header value.
    pub(crate) fn ip(&self) -> &HeaderValue {
        &self.text
    }

    /// Returns the IP address in the form of the `Forwarded` header.
    pub(crate) fn quoted(&self) -> &[u8] {
        self.quoted.as_bytes()
    }
}
