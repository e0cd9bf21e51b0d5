//! A listener and its connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{connection::Server, limits::Limits};
use crate::{downstream::TrustedProxies, keepalive::keep_alive, proxy::Proxy, route::Side};

/// Bytes that the kernel takes for a client beyond what it can send at once. More would be memory for a client that does
/// not read, and would not make the others faster.
const UNSENT: u32 = 64 << 10;

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    side: Side,
    limits: Limits,
    tls: Option<Arc<ServerConfig>>,
    trusted: TrustedProxies,
}

/// Delay after a failed accept, which is caused by a lack of file descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

impl Listener {
    /// Binds the address at once, so that a wrong one is reported before anything else is done.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub async fn bind(address: SocketAddr, side: Side, limits: Limits) -> io::Result<Self> {
        Ok(Self {
            socket: TcpListener::bind(address).await?,
            side,
            limits,
            tls: None,
            trusted: TrustedProxies::default(),
        })
    }

    /// Serves connections with TLS. A handshake counts as a connection, and has the timeout of a head.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ServerConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Passes on what these peers state about the origin of a request. By default there are none.
    #[must_use]
    pub fn with_trusted_proxies(mut self, trusted: TrustedProxies) -> Self {
        self.trusted = trusted;
        self
    }

    /// Returns the local address.
    ///
    /// # Errors
    ///
    /// If the system does not report it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Accepts connections until `stop` is cancelled. Then every connection is closed after its pending responses, and
    /// this returns when all have ended.
    pub async fn serve(self, proxy: Arc<Proxy>, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let server = Arc::new(
            Server::new(self.limits, self.side, proxy, stop.clone())
                .with_tls(self.tls.clone())
                .with_trusted_proxies(self.trusted.clone()),
        );
        let permits = Arc::new(Semaphore::new(self.limits.connections));
        while let Some((stream, address, permit)) = stop.run_until_cancelled(self.accept(&permits)).await {
            if let Err(error) =
                stream.set_nodelay(true).and_then(|()| keep_alive(&stream)).and_then(|()| limit_unsent(&stream))
            {
                tracing::debug!(%error, "Connection ended before its first request");
                continue;
            }
            let server = server.clone();
            // A task of its own: a panic ends this connection and no other.
            connections.spawn(async move { server.serve(stream, address, permit).await });
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
    }

    /// Accepts the next connection within the limit.
    async fn accept(&self, permits: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return std::future::pending().await };
            match self.socket.accept().await {
                Ok((stream, address)) => return (stream, address, permit),
                Err(error) => {
                    tracing::warn!(%error, "Failed to accept a connection");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }
}

/// Limits the memory of the kernel for a client that does not read.
fn limit_unsent(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)
}
