//! The client of a connection.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::HeaderValue;

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
        Self { state, headers, secure: false, text, quoted: quoted.into(), timer: ConnectionTimer::default() }
    }

    /// Sets whether the connection uses TLS that ends in this process.
    #[must_use]
    pub(crate) fn with_tls(mut self, secure: bool) -> Self {
        self.secure = secure;
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
