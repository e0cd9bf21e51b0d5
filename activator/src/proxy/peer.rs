//! The client's end of a connection.

use std::{net::SocketAddr, sync::Arc};

use tokio::{io::Interest, net::TcpStream};

use super::alarm::Alarm;
use crate::serve::HeadVerdict;

/// The client's end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The connection itself, to see it close. The server reads nothing while a request body waits for a pod, so it would not
    /// see that.
    pub(crate) socket: Arc<TcpStream>,
    /// What the guard of the connection has found in the heads of its requests.
    pub(crate) heads: Arc<HeadVerdict>,
    /// For time-outs of its requests.
    pub(super) alarm: Alarm,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr, socket: Arc<TcpStream>, heads: Arc<HeadVerdict>) -> Self {
        Self { address, socket, heads, alarm: Alarm::default() }
    }

    /// Completes when the client has closed its side, even if bytes of it are still unread.
    ///
    /// A client that only half-closes cannot be told from one that has left; as with other proxies it counts as gone.
    pub async fn gone(&self) {
        // PRIORITY stands for urgent data or a closed read side, and unlike READABLE not for unread bytes.
        if let Ok(ready) = self.socket.ready(Interest::PRIORITY).await
            && !ready.is_read_closed()
        {
            // Urgent data, which HTTP has no use for. Its readiness stays, so nothing more can be learnt here.
            std::future::pending::<()>().await;
        }
    }
}
