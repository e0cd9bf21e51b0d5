//! The client's end of a connection.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::HeaderValue;

use super::{alarm::Alarm, fault::HeadVerdict};

/// The client's end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// What the guard of the connection has found in the heads of its requests.
    pub(crate) heads: Arc<HeadVerdict>,
    /// Headers that a request may have.
    pub(crate) headers: usize,
    /// Whether it speaks TLS with this process.
    pub(crate) secure: bool,
    /// Its IP address as headers say it; written once for all requests of the connection.
    text: HeaderValue,
    quoted: Box<str>,
    /// For time-outs of its requests.
    pub(crate) alarm: Alarm,
}

impl Peer {
    /// The client at this address.
    #[must_use]
    pub fn new(address: SocketAddr, heads: Arc<HeadVerdict>, headers: usize) -> Self {
        let address = address.ip().to_canonical();
        let text = address.to_string();
        let quoted = match address {
            IpAddr::V4(_) => text.clone(),
            IpAddr::V6(_) => format!("\"[{text}]\""),
        };
        // Digits and colons: there is no address that a header cannot say.
        let text = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"));
        Self { heads, headers, secure: false, text, quoted: quoted.into(), alarm: Alarm::default() }
    }

    /// The same, whether or not it speaks TLS with this process.
    #[must_use]
    pub(crate) fn by_tls(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Its IP address.
    pub(crate) fn text(&self) -> &HeaderValue {
        &self.text
    }

    /// Its IP address as `Forwarded` wants it.
    pub(crate) fn quoted(&self) -> &[u8] {
        self.quoted.as_bytes()
    }
}
