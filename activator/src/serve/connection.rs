//! One connection, from its first byte on.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{HeaderValue, StatusCode, header};
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::{
    departure::Departure,
    fault::HeadVerdict,
    limits::Limits,
    socket::{Socket, Version, Written},
};
use crate::{
    proxy::{Peer, Proxy},
    route::Side,
};

/// How connections are served: what is the same for all of a listener.
#[derive(Debug)]
pub(super) struct Server {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    limits: Limits,
    side: Side,
    proxy: Arc<Proxy>,
    /// No more connections are accepted, and those that are silent end.
    stop: CancellationToken,
}

/// What happens beside the requests of a connection.
enum Aside {
    /// The listener stops.
    Stop,
    /// The client has left.
    Left,
}

/// The library's buffer has to take a whole head and may not be smaller than this.
const SMALLEST_BUFFER: usize = 8 << 10;
/// Headers for which the library needs no allocation.
const USUAL_HEADERS: usize = 100;
/// How often a silent HTTP/2 client is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(20);

/// The HTTP servers that connections have with these limits.
pub(crate) fn builders(limits: &Limits) -> (http1::Builder, http2::Builder<TokioExecutor>) {
    let mut http1 = http1::Builder::new();
    http1
        .max_buf_size((limits.head_bytes + 1).max(SMALLEST_BUFFER))
        // The socket knows how long to wait, and for what.
        .header_read_timeout(None)
        // Who leaves is noticed elsewhere, and told from those who only have no more to say.
        .half_close(true);
    if limits.headers > USUAL_HEADERS {
        http1.max_headers(limits.headers);
    }
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.resets)
        .max_local_error_reset_streams(limits.resets)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT)
        .adaptive_window(true);
    (http1, http2)
}

impl Server {
    pub(super) fn new(limits: Limits, side: Side, proxy: Arc<Proxy>, stop: CancellationToken) -> Self {
        let (http1, http2) = builders(&limits);
        Self { http1, http2, limits, side, proxy, stop }
    }

    /// Serves a connection until its end.
    pub(super) async fn serve(&self, stream: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) {
        let (stream, heads, written) = (Arc::new(stream), Arc::<HeadVerdict>::default(), Arc::<Written>::default());
        let mut socket = Socket::new(stream.clone(), heads.clone(), written.clone(), self.limits, place);
        let version = match self.version(&mut socket).await {
            Ok(Some(version)) => version,
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "A connection ended before it began"),
        };
        let peer = Arc::new(Peer::new(address, heads.clone(), self.limits.headers));
        let (proxy, side, http2) = (self.proxy.clone(), self.side, version == Version::Http2);
        let service = service_fn(move |request| {
            let (proxy, peer) = (proxy.clone(), peer.clone());
            async move {
                peer.heads.waiting(true);
                let mut answer = proxy.serve(side, &peer, request).await;
                peer.heads.waiting(false);
                if !http2
                    && proxy.is_leaving()
                    && let Ok(answer) = &mut answer
                    && answer.status() != StatusCode::SWITCHING_PROTOCOLS
                {
                    // A connection that ends by word of an answer loses no request, unlike one that is just closed.
                    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                answer
            }
        });
        let io = TokioIo::new(socket);
        let departure = Departure { stream, shared: heads, written };
        let ended = match version {
            Version::Http1 => {
                let connection = self.http1.serve_connection(io, service).with_upgrades();
                self.run(connection, http1::UpgradeableConnection::graceful_shutdown, &departure).await
            }
            Version::Http2 => {
                let connection = self.http2.serve_connection(io, service);
                self.run(connection, http2::Connection::graceful_shutdown, &departure).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "A connection ended");
        }
    }

    /// Runs a connection to its end, or to that of its client.
    async fn run<C: Future<Output = hyper::Result<()>>>(
        &self,
        connection: C,
        shut_down: fn(Pin<&mut C>),
        departure: &Departure,
    ) -> hyper::Result<()> {
        let mut connection = pin!(connection);
        let mut asides = self.asides(departure);
        loop {
            tokio::select! {
                biased;
                ended = &mut connection => return ended,
                Some(aside) = asides.next() => match aside {
                    Aside::Stop => shut_down(connection.as_mut()),
                    // Dropping the connection drops what is done for it.
                    Aside::Left => return Ok(()),
                },
            }
        }
    }

    /// What may happen beside the requests of a connection. Each is only polled when something happened, so that a request
    /// does not pay for them.
    fn asides<'a>(&'a self, departure: &'a Departure) -> FuturesUnordered<BoxFuture<'a, Aside>> {
        let stop = async {
            self.stop.cancelled().await;
            Aside::Stop
        };
        let left = async {
            departure.noticed().await;
            Aside::Left
        };
        let both: [BoxFuture<'a, Aside>; 2] = [Box::pin(stop), Box::pin(left)];
        both.into_iter().collect()
    }

    /// What the client speaks; `None` if there is nothing to be said.
    async fn version(&self, socket: &mut Socket) -> std::io::Result<Option<Version>> {
        tokio::select! {
            biased;
            version = socket.version() => return version,
            () = self.stop.cancelled() => {}
        }
        // What has begun to come before the end is still answered.
        if socket.is_silent() { Ok(None) } else { socket.version().await }
    }
}
