//! One client connection, from its first byte to its end.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures::{Stream, stream};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{
    beside::Beside,
    connections::Slot,
    disconnect::DisconnectWatcher,
    http2_socket::Http2Socket,
    limits::Limits,
    send_timeout::WriteProgress,
    socket::{Counted, Socket, Version},
    stream_tags::take_tag,
    streams::{StreamLimits, Streams},
    tls::{self, Secured},
    window_writer::LIBRARY_WINDOW,
};
use crate::{
    downstream::{CONNECTION_BUDGET, ConnectionState, Peer, STREAM_WINDOW, StreamGrants, TrustedProxies, UploadStream},
    proxy::{Body, ClientGone, Proxy},
    route::Side,
};

/// HTTP servers and limits that all connections of a listener share.
#[derive(Debug)]
pub(super) struct Server {
    http1: http1::Builder,
    limits: Limits,
    side: Side,
    /// Name of the listener in metrics.
    name: &'static str,
    tls: Option<Arc<ServerConfig>>,
    trusted: TrustedProxies,
    proxy: Arc<Proxy>,
    /// Cancelled at shutdown: no new connections are accepted, and idle ones are closed.
    stop: CancellationToken,
}

/// An event beside the requests of a connection.
enum ConnectionEvent {
    /// The listener shuts down.
    Shutdown,
    /// The connection is idle or old, or is closed early to free resources.
    Retired,
    /// The client disconnected, or takes nothing more.
    ClientGone,
}

/// The library's buffer has to hold a whole head, and may not be smaller than this.
const SMALLEST_BUFFER: usize = 8 << 10;
/// Number of headers that the library parses without an allocation.
const USUAL_HEADERS: usize = 100;
/// Initial HTTP/2 window, and its maximum.
const SMALLEST_WINDOW: u32 = (1 << 16) - 1;
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// HTTP/2: bytes of a response that are buffered for a client that does not read.
const SEND_BUFFER: usize = 64 << 10;
/// Interval and timeout of HTTP/2 pings to an idle client.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(20);

/// Builds the HTTP/1 server with these limits.
pub(crate) fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        .max_buf_size((limits.head_bytes + 1).max(SMALLEST_BUFFER))
        // The socket enforces this timeout, and the one of an idle connection.
        .header_read_timeout(None)
        // The disconnect watcher tells a client that is gone from one that half-closed.
        .half_close(true);
    if limits.headers > USUAL_HEADERS {
        http1.max_headers(limits.headers);
    }
    http1
}

/// Builds the HTTP/2 server with these limits, for the connections whose requests this executor runs.
pub(crate) fn http2_builder<E: Clone>(limits: &Limits, executor: E) -> http2::Builder<E> {
    let mut http2 = http2::Builder::new(executor);
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(limits.resets)
        .max_local_error_reset_streams(limits.resets)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT)
        // The socket announces less, see `WindowWriter`.
        .initial_stream_window_size(LIBRARY_WINDOW)
        .initial_connection_window_size(connection_window(limits.streams))
        .max_send_buf_size(SEND_BUFFER);
    http2
}

/// Returns a window that all streams can fill: bodies of queued requests must not use up the window of those that are
/// being read, since the queued ones may be waiting for just these.
fn connection_window(streams: u32) -> u32 {
    let queued = streams.saturating_mul(STREAM_WINDOW);
    queued.saturating_add(CONNECTION_BUDGET).clamp(SMALLEST_WINDOW, LARGEST_WINDOW)
}

impl Server {
    pub(super) fn new(limits: Limits, side: Side, proxy: Arc<Proxy>, stop: CancellationToken) -> Self {
        let name = match side {
            Side::Public => "public",
            Side::Cluster => "cluster",
        };
        let trusted = TrustedProxies::default();
        Self { http1: http1_builder(&limits), limits, side, name, tls: None, trusted, proxy, stop }
    }

    /// Serves connections with TLS.
    pub(super) fn with_tls(mut self, tls: Option<Arc<ServerConfig>>) -> Self {
        if tls.is_some() {
            self.name = "tls";
        }
        self.tls = tls;
        self
    }

    /// Sets the trusted proxies.
    pub(super) fn with_trusted_proxies(mut self, trusted: TrustedProxies) -> Self {
        self.trusted = trusted;
        self
    }

    /// Serves a connection until its end.
    pub(super) async fn serve(&self, stream: TcpStream, address: SocketAddr, slot: Slot) {
        let (proxy, side) = (self.proxy.clone(), self.side);
        let (stream, written) = (Arc::new(stream), Arc::<WriteProgress>::default());
        let counted = Counted::new(slot, self.proxy.metrics().connections.open(self.name));
        let tls = match &self.tls {
            None => None,
            Some(config) => {
                match tls::accept(config.clone(), stream.clone(), written.clone(), self.limits.head_time).await {
                    Ok(tls) => Some(tls),
                    Err(error) => {
                        self.proxy.metrics().tls.failed_handshakes.inc();
                        return tracing::debug!(%error, "TLS handshake failed");
                    }
                }
            }
        };
        let handler = move |request, peer| proxy.clone().serve(side, peer, request);
        self.serve_with((stream, tls, written), address, counted, handler).await;
    }

    async fn serve_with<A, F>(
        &self,
        (stream, tls, written): (Arc<TcpStream>, Option<Secured>, Arc<WriteProgress>),
        address: SocketAddr,
        counted: Counted,
        handler: A,
    ) where
        A: Fn(Request<Incoming>, Arc<Peer>) -> F,
        F: Future<Output = Result<Response<Body>, ClientGone>> + Send + 'static,
    {
        let (heads, secure) = (Arc::<ConnectionState>::default(), tls.is_some());
        let mut socket = Socket::new((stream.clone(), tls), heads.clone(), written.clone(), self.limits, counted);
        let version = match self.version(&mut socket).await {
            Ok(Some(version)) => version,
            Ok(None) => return,
            Err(error) => return tracing::debug!(%error, "Connection ended before its first request"),
        };
        let closed_early = socket.closed_early();
        let (age, trusted) = (self.age(), self.trusted.contains(address.ip()));
        let peer = Peer::new(address, heads.clone(), self.limits.headers).with_tls(secure).with_trust(trusted);
        let peer = peer.with_age(age).with_body_limits(self.limits.body_time, self.limits.body_rate);
        let peer = Arc::new(peer);
        let service = service_fn(|mut request: Request<Incoming>| {
            if request.version() == http::Version::HTTP_2
                && let Some(stream) = take_tag(&mut request)
            {
                request.extensions_mut().insert(UploadStream(stream));
            }
            handler(request, peer.clone())
        });
        let watcher = DisconnectWatcher { stream, shared: heads, written, secure };
        let ended = match version {
            Version::Http1 => {
                let io = TokioIo::new(socket);
                let connection = pin!(self.http1.serve_connection(io, service).with_upgrades());
                let early = stream::once(async {
                    closed_early.await;
                    ConnectionEvent::Retired
                });
                let events = pin!(stream::select(self.events(&watcher), early));
                Self::run(connection, http1::UpgradeableConnection::graceful_shutdown, events).await
            }
            Version::Http2 => {
                // Boxed, so that the other connections, of which there are many more, are not larger for it.
                let grants = StreamGrants::new(self.proxy.upload_windows().clone());
                watcher.shared.set_uploads(grants.clone());
                let io = TokioIo::new(Http2Socket::new(socket, grants));
                let streams = Streams::new(self.stream_limits(age));
                let server = http2_builder(&self.limits, streams.clone());
                let mut connection = Box::pin(server.serve_connection(io, service));
                let retirement = retirement(&streams, closed_early);
                let mut events = Box::pin(stream::select(self.events(&watcher), retirement));
                Self::run(connection.as_mut(), http2::Connection::graceful_shutdown, events.as_mut()).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "Connection ended with an error");
        }
    }

    /// Runs a connection until it ends or its client disconnects.
    async fn run<C: Future<Output = hyper::Result<()>>>(
        mut connection: Pin<&mut C>,
        shut_down: fn(Pin<&mut C>),
        mut events: Pin<&mut impl Stream<Item = ConnectionEvent>>,
    ) -> hyper::Result<()> {
        let beside = Beside::new();
        loop {
            let event = poll_fn(|cx| {
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Err(ended));
                }
                beside.poll(cx, |cx| events.as_mut().poll_next(cx)).map(Ok)
            });
            match event.await {
                Err(ended) => return ended,
                Ok(Some(ConnectionEvent::Shutdown | ConnectionEvent::Retired)) => shut_down(connection.as_mut()),
                // Dropping the connection aborts its requests.
                Ok(Some(ConnectionEvent::ClientGone) | None) => return Ok(()),
            }
        }
    }

    /// Returns the events of a connection.
    fn events<'a>(&'a self, watcher: &'a DisconnectWatcher) -> impl Stream<Item = ConnectionEvent> + 'a {
        let stop = async {
            self.stop.cancelled().await;
            ConnectionEvent::Shutdown
        };
        let left = async {
            watcher.disconnected().await;
            ConnectionEvent::ClientGone
        };
        stream::select(stream::once(stop), stream::once(left))
    }

    /// Returns the age at which a connection is closed, which differs by up to a tenth, so that connections that began
    /// together do not end together.
    fn age(&self) -> Option<Duration> {
        let age = self.limits.age?;
        Some(age.mul_f64(rand::random_range(0.9..=1.1)))
    }

    fn stream_limits(&self, age: Option<Duration>) -> StreamLimits {
        let Limits { first_request, idle, send, .. } = self.limits;
        StreamLimits { first_request, idle, send, age }
    }

    /// Detects the client's protocol; `None` if the connection ends before that.
    async fn version(&self, socket: &mut Socket) -> std::io::Result<Option<Version>> {
        let closed_early = socket.closed_early();
        tokio::select! {
            biased;
            version = socket.version() => return version,
            () = self.stop.cancelled() => {}
            () = closed_early => {}
        }
        // A request that arrived in part before the shutdown is still served.
        if socket.is_silent() { Ok(None) } else { socket.version().await }
    }
}

/// Returns the events of an HTTP/2 connection that is idle, old, or closed early.
fn retirement(streams: &Streams, closed_early: impl Future<Output = ()>) -> impl Stream<Item = ConnectionEvent> {
    stream::unfold(Some(closed_early), move |closed_early| async move {
        let Some(closed_early) = closed_early else {
            // A client may ignore the GOAWAY.
            streams.drained().await;
            return Some((ConnectionEvent::ClientGone, None));
        };
        let event = tokio::select! {
            () = streams.retired() => {
                // A client that never sent a request gets no time to end its requests.
                if streams.is_used() { ConnectionEvent::Retired } else { ConnectionEvent::ClientGone }
            }
            () = closed_early => ConnectionEvent::Retired,
        };
        Some((event, None))
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn;
    use hyper_util::rt::TokioExecutor;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{demand::Ledger, metrics::Metrics, route::Table, serve::Connections};

    /// Serves connections whose requests to `/panic` panic.
    async fn serving() -> SocketAddr {
        let limits = Limits {
            connections: 10,
            head_bytes: 8 << 10,
            headers: 100,
            request_line: 4 << 10,
            head_time: Duration::from_secs(60),
            first_request: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            send: Duration::from_secs(60),
            body_time: Duration::from_secs(60),
            body_rate: 1,
            age: None,
            streams: 100,
            resets: 10,
        };
        let (table, metrics) = (Arc::new(Table::new("cluster.local")), Metrics::new(Ledger::new()));
        let connections = Connections::new(limits.connections, None, Arc::default(), metrics.clone());
        let proxy = Arc::new(Proxy::new(table, metrics, CancellationToken::new()));
        let server = Arc::new(Server::new(limits, Side::Public, proxy, CancellationToken::new()));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, address)) = listener.accept().await {
                let (server, slot) = (server.clone(), connections.enter_past_limits(address.ip()));
                let counted = Counted::new(slot, server.proxy.metrics().connections.open("public"));
                let handler = |request: Request<Incoming>, _| async move {
                    assert_ne!(request.uri().path(), "/panic", "on purpose");
                    Ok(Response::new(Body::full("fine".into())))
                };
                tokio::spawn(async move {
                    server.serve_with((Arc::new(stream), None, Arc::default()), address, counted, handler).await;
                });
            }
        });
        address
    }

    fn get(path: &str) -> Request<Empty<bytes::Bytes>> {
        Request::get(format!("http://a.example{path}")).header("host", "a.example").body(Empty::new()).unwrap()
    }

    async fn is_fine(response: hyper::Result<Response<Incoming>>) -> bool {
        match response {
            Ok(response) => response.into_body().collect().await.is_ok_and(|body| body.to_bytes() == "fine"),
            Err(_) => false,
        }
    }

    #[tokio::test]
    async fn a_panic_ends_one_connection() {
        let address = serving().await;
        let connect = || async {
            let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
            let (sender, connection) = conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender
        };
        let (mut one, mut other) = (connect().await, connect().await);
        assert!(is_fine(one.send_request(get("/")).await).await && is_fine(other.send_request(get("/")).await).await);
        assert!(!is_fine(one.send_request(get("/panic")).await).await);
        assert!(is_fine(other.send_request(get("/")).await).await);
        assert!(is_fine(connect().await.send_request(get("/")).await).await);
    }

    #[tokio::test]
    async fn a_panic_ends_one_stream() {
        let io = TokioIo::new(TcpStream::connect(serving().await).await.unwrap());
        let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let (before, panics) = (sender.send_request(get("/")), sender.send_request(get("/panic")));
        let (before, panics) = tokio::join!(before, panics);
        assert!(is_fine(before).await && !is_fine(panics).await);
        assert!(is_fine(sender.send_request(get("/")).await).await);
    }
}
