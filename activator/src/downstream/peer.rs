//! The client of a connection.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
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
    address: IpAddr,
    /// Written for the first request that is sent to a pod, and used for all of the connection.
    text: OnceLock<Box<AddressText>>,
    /// Timer for the timeouts of its requests.
    pub(crate) timer: ConnectionTimer,
}

/// An IP address as text.
#[derive(Debug)]
struct AddressText {
    plain: HeaderValue,
    /// As an element of `Forwarded` has it.
    quoted: String,
}

impl Peer {
    /// Creates the client at this address.
    #[must_use]
    pub fn new(address: SocketAddr, state: Arc<ConnectionState>, headers: usize) -> Self {
        let address = address.ip().to_canonical();
        Self {
            state,
            headers,
            secure: false,
            body_time: Duration::ZERO,
            body_rate: 0,
            expires: None,
            trusted: false,
            address,
            text: OnceLock::new(),
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
        &self.text().plain
    }

    /// Returns the IP address in the form of the `Forwarded` header.
    pub(crate) fn quoted(&self) -> &[u8] {
        self.text().quoted.as_bytes()
    }

    fn text(&self) -> &AddressText {
        self.text.get_or_init(|| {
            let plain = self.address.to_string();
            let quoted = if self.address.is_ipv4() { plain.clone() } else { format!("\"[{plain}]\"") };
            // Digits and colons are valid in a header.
            let plain = HeaderValue::try_from(plain).unwrap_or(HeaderValue::from_static("unknown"));
            Box::new(AddressText { plain, quoted })
        })
    }
}
