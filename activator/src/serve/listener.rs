//! A listener and its connections.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    bind::bind,
    connection::Server,
    connections::{Connections, Slot},
    limits::Limits,
    refusal::{Refusal, Refuser},
};
use crate::{
    downstream::TrustedProxies,
    keepalive::keep_alive,
    proxy::Proxy,
    resources::{Spare, is_exhausted},
    route::Side,
};

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
    connections: Arc<Connections>,
    /// One descriptor, closed to refuse a connection when no other is left.
    spare: Mutex<Spare>,
}

/// Delay after a failed accept, which is caused by a lack of file descriptors or memory.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

impl Listener {
    /// Binds the address at once, so that a wrong one is reported before anything else is done.
    ///
    /// # Errors
    ///
    /// If the address cannot be bound.
    pub fn bind(address: SocketAddr, side: Side, limits: Limits, connections: Arc<Connections>) -> io::Result<Self> {
        let spare = Mutex::new(Spare::new(1));
        Ok(Self {
            socket: bind(address)?,
            side,
            limits,
            tls: None,
            trusted: TrustedProxies::default(),
            connections,
            spare,
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
        let tasks = TaskTracker::new();
        let server = Arc::new(
            Server::new(self.limits, self.side, proxy, stop.clone())
                .with_tls(self.tls.clone())
                .with_trusted_proxies(self.trusted.clone()),
        );
        let spawn = |stream: TcpStream, address, slot| {
            let options = stream.set_nodelay(true).and_then(|()| keep_alive(&stream));
            if let Err(error) = options.and_then(|()| limit_unsent(&stream)) {
                return tracing::debug!(%error, "Connection ended before its first request");
            }
            let server = server.clone();
            // A task of its own: a panic ends this connection and no other.
            tasks.spawn(async move { server.serve(stream, address, slot).await });
        };
        let (slots, refuser) = (Arc::new(Semaphore::new(self.limits.connections)), Refuser::new(self.tls.is_some()));
        while let Some((stream, address, slot)) = stop.run_until_cancelled(self.accept(&slots, &refuser)).await {
            spawn(stream, address, slot);
        }
        let connections = self.connections.clone();
        for (stream, address) in self.into_queue() {
            spawn(stream, address, connections.enter_past_limits(address.ip()));
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Accepts the next connection within the limits. Cancel-safe.
    async fn accept(&self, slots: &Arc<Semaphore>, refuser: &Refuser) -> (TcpStream, SocketAddr, Slot) {
        loop {
            // Of the listener first: a crowded one does not hold slots of the process.
            let permits =
                [self.connections.permit(slots).await, self.connections.permit(self.connections.slots()).await];
            match self.socket.accept().await {
                Ok((stream, address)) => match self.connections.enter(address.ip(), permits) {
                    Ok(slot) => return (stream, address, slot),
                    Err(refusal) => refuser.refuse(stream, refusal),
                },
                Err(error) => {
                    if self.connections.may_log("accept") {
                        tracing::warn!(%error, "Failed to accept a connection");
                    }
                    if is_exhausted(&error) {
                        self.refuse_with_spare(refuser).await;
                    }
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    }

    /// Refuses one connection with the spare descriptor, in place of a client that waits for nothing.
    async fn refuse_with_spare(&self, refuser: &Refuser) {
        if !self.spare.lock().release() {
            return self.spare.lock().refill();
        }
        // Another thread may take the descriptor first.
        if let Ok(Ok((stream, address))) = timeout(ACCEPT_AGAIN, self.socket.accept()).await {
            refuser.refuse(stream, self.connections.refused(Refusal::Descriptors, address.ip()));
        }
        self.spare.lock().refill();
    }

    /// Closes the listener, and returns the connections that had waited to be accepted: they would be reset.
    fn into_queue(self) -> Vec<(TcpStream, SocketAddr)> {
        let Ok(socket) = self.socket.into_std() else { return vec![] };
        let accepted = std::iter::from_fn(|| match socket.accept() {
            Ok((stream, address)) => Some(Some((stream, address))),
            // The client has closed already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Some(None),
            Err(_) => None,
        });
        let open = |(stream, address): (std::net::TcpStream, _)| {
            stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)).ok().map(|stream| (stream, address))
        };
        accepted.flatten().filter_map(open).collect()
    }
}

/// Limits the memory of the kernel for a client that does not read.
fn limit_unsent(stream: &TcpStream) -> io::Result<()> {
    SockRef::from(stream).set_tcp_notsent_lowat(UNSENT)
}
