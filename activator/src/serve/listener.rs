//! A listener and its connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{connection::Server, limits::Limits};
use crate::{keepalive::keep_alive, proxy::Proxy, route::Side};

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    side: Side,
    limits: Limits,
    tls: Option<Arc<ServerConfig>>,
}

/// After a failure to accept, which is a lack of file descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

impl Listener {
    /// Binds at once, so that a wrong address is found before anything else is done.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub async fn bind(address: SocketAddr, side: Side, limits: Limits) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, side, limits, tls: None })
    }

    /// The same, by TLS. A handshake has its connection's place, and as long as a head may take.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ServerConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts until `stop` is cancelled, then ends every connection after the answers that are due on it, and returns when
    /// all have ended.
    pub async fn serve(self, proxy: Arc<Proxy>, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let server = Arc::new(Server::new(self.limits, self.side, proxy, stop.clone()).with_tls(self.tls.clone()));
        let places = Arc::new(Semaphore::new(self.limits.connections));
        while let Some((stream, address, place)) = stop.run_until_cancelled(self.accept(&places)).await {
            if let Err(error) = stream.set_nodelay(true).and_then(|()| keep_alive(&stream)) {
                tracing::debug!(%error, "A connection ended before it began");
                continue;
            }
            let server = server.clone();
            // A task of its own: a panic ends this connection and no other.
            connections.spawn(async move { server.serve(stream, address, place).await });
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
    }

    /// The next connection and its place among those that are allowed.
    async fn accept(&self, places: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return std::future::pending().await };
            match self.socket.accept().await {
                Ok((stream, address)) => return (stream, address, place),
                Err(error) => {
                    tracing::warn!(%error, "A connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}
