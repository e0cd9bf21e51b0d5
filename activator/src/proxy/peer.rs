//! The client's end of a connection.

use std::{net::SocketAddr, sync::Arc};

/// The client's end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// What the guard of the connection has found in the heads of its requests.
    pub(crate) heads: Arc<crate::serve::HeadVerdict>,
    /// Headers that a request may have.
    pub(crate) headers: usize,
}
