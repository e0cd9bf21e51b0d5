//! A listener and its connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use super::{heads::HeadVerdict, socket::Socket};
use crate::{
    keepalive::keep_alive,
    proxy::{Peer, Proxy},
    route::Side,
};

/// What one listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once. The next ones wait to be accepted.
    pub connections: usize,
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    side: Side,
    limits: Limits,
}

/// How long a connection may be without a request. Proxies in front keep theirs for up to an hour (Envoy's default) and are
/// to be the ones to close, since a request that crosses a close is lost.
const IDLE: Duration = Duration::from_secs(3605);
/// Bytes of a head that are read at most.
const HEAD: usize = 64 << 10;
const HEADERS: usize = 128;
const STREAMS: u32 = 1000;
/// After a failure to accept, which is a lack of file descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

impl Listener {
    /// Binds at once, so that a wrong address is found before anything else is done.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub async fn bind(address: SocketAddr, side: Side, limits: Limits) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, side, limits })
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
        let graceful = GracefulShutdown::new();
        let server = Arc::new(server());
        let places = Arc::new(Semaphore::new(self.limits.connections));
        while let Some((stream, address, place)) = stop.run_until_cancelled(self.accept(&places)).await {
            if let Err(error) = stream.set_nodelay(true).and_then(|()| keep_alive(&stream)) {
                tracing::debug!(%error, "A connection ended before it began");
                continue;
            }
            let stream = Arc::new(stream);
            let verdict = Arc::new(HeadVerdict::default());
            let peer = Arc::new(Peer::new(address, stream.clone(), verdict.clone()));
            let (proxy, server, watcher, side) = (proxy.clone(), server.clone(), graceful.watcher(), self.side);
            // A task of its own: a panic ends this connection and no other.
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    let (proxy, peer) = (proxy.clone(), peer.clone());
                    async move { proxy.serve(side, &peer, request).await }
                });
                let io = TokioIo::new(Socket::new(stream, verdict));
                let connection = server.serve_connection_with_upgrades(io, service);
                if let Err(error) = watcher.watch(connection.into_owned()).await {
                    tracing::debug!(%error, "A connection ended");
                }
                drop(place);
            });
        }
        drop(self.socket);
        graceful.shutdown().await;
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

/// The HTTP server of a connection.
pub(crate) fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        // A client that closes while its request is in a pod ends the request there too.
        .half_close(false);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(64 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .adaptive_window(true);
    server
}
