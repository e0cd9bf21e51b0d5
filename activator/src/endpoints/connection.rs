//! A connection to a pod.
//!
//! It is known exactly whether a request was handed to a connection, which decides about a retry.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::Either;
use http::{HeaderMap, Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rouse_crds::function::Protocol;
use tokio::time::{Instant, sleep_until};

use super::{
    dial::{DialError, Dialer},
    endpoint::Endpoint,
    http1_connection::Http1Connection,
    keep_alive,
    loss::{Loss, http1_loss, http2_loss},
    pod_stream::{PodSocket, PodStream},
};
use crate::body::RequestBody;

/// Connect timeout of a request. Long enough for a lost SYN to be sent again.
const CONNECT: Duration = Duration::from_secs(3);

/// HTTP/1: bytes of a response that are read ahead of the client, and of a request that are buffered for a pod that does
/// not read.
const BUFFER: usize = 32 << 10;
/// HTTP/1: maximum number of fields in the head of a response. Its maximum size is that of the buffer.
const HEADERS: usize = 256;

/// HTTP/2: bytes of a response that a pod may send while the client does not read.
const STREAM_WINDOW: u32 = 64 << 10;
/// The same for all responses of a connection: a thousand slow clients do not block the others.
const CONNECTION_WINDOW: u32 = 1000 * STREAM_WINDOW;
/// HTTP/2: bytes of a request body that are buffered for a pod that does not read.
const SEND_BUFFER: usize = 64 << 10;

/// Shortest time between two searches for expired connections of one pod.
const LEAST_INTERVAL: Duration = Duration::from_millis(500);

/// A connection that is ready for one request.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    /// It has carried a request before.
    pub reused: bool,
}

#[derive(Debug)]
enum Sender {
    Http1(Http1Connection),
    Http2(http2::SendRequest<RequestBody>),
}

/// Result of sending a request on a connection.
#[derive(Debug)]
pub enum Sent {
    /// The head of the response.
    Response(Response<Incoming>),
    /// Not a byte of the request was written; here it is again.
    Unsent(Box<Request<RequestBody>>, String),
    /// The request was written at least in part, and there is no response.
    Lost(Loss),
}

impl Endpoint {
    /// Returns a pooled connection, if there is one.
    pub(crate) fn pooled(&self) -> Option<Connection> {
        let sender = match self.protocol {
            Protocol::Http1 => Sender::Http1(self.pool.take_idle()?),
            Protocol::H2c => Sender::Http2(self.pool.http2()?),
        };
        Some(Connection { sender, reused: true })
    }

    /// Opens a new connection.
    ///
    /// # Errors
    ///
    /// If the connect fails.
    pub async fn connect(&self, dialer: &Dialer) -> Result<Connection, DialError> {
        let stream = PodStream::new(dialer.connect(self.address, CONNECT).await?);
        let io = TokioIo::new(PodSocket(stream.clone()));
        let sender = match self.protocol {
            Protocol::Http1 => {
                let mut builder = http1::Builder::new();
                builder.max_buf_size(BUFFER).max_headers(HEADERS);
                let (sender, connection) = builder.handshake(io).await.map_err(std::io::Error::other)?;
                tokio::spawn(async move {
                    if let Err(error) = connection.with_upgrades().await {
                        tracing::debug!(%error, "Connection to a pod ended with an error");
                    }
                });
                Sender::Http1(Http1Connection { sender, stream, idle_limit: keep_alive::UNANNOUNCED })
            }
            Protocol::H2c => {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    // Detects a pod that vanished; a long idle stream stays open.
                    .keep_alive_interval(Duration::from_secs(20))
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .max_send_buf_size(SEND_BUFFER);
                let (sender, connection) = builder.handshake(io).await.map_err(std::io::Error::other)?;
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "Connection to a pod ended with an error");
                    }
                });
                self.pool.set_http2(&sender);
                Sender::Http2(sender)
            }
        };
        Ok(Connection { sender, reused: false })
    }
}

impl Connection {
    /// Sends a request; the future waits for the head of the response. Dropping it aborts the request.
    ///
    /// The request is handed over before the future is made, so that it is not moved with it.
    pub fn send(&mut self, request: Request<RequestBody>) -> impl Future<Output = Sent> + use<> {
        let (sending, stream) = match &mut self.sender {
            Sender::Http1(connection) => {
                connection.stream.start_request();
                (Either::Left(connection.sender.try_send_request(request)), Some(connection.stream.clone()))
            }
            Sender::Http2(sender) => (Either::Right(sender.try_send_request(request)), None),
        };
        async move {
            match sending.await {
                Ok(response) => Sent::Response(response),
                Err(mut error) => match (error.take_message(), stream) {
                    (Some(request), _) => Sent::Unsent(Box::new(request), error.into_error().to_string()),
                    // Boxed, as it is rare and would make the state of every request larger.
                    (None, Some(stream)) => Sent::Lost(Box::pin(http1_loss(error.into_error(), &stream)).await),
                    (None, None) => Sent::Lost(http2_loss(&error.into_error())),
                },
            }
        }
    }

    /// Takes in how long the pod keeps this connection open, from the head of a response.
    pub(crate) fn set_idle_limit(&mut self, response: &HeaderMap) {
        if let Sender::Http1(connection) = &mut self.sender {
            connection.idle_limit = keep_alive::idle_limit(response);
        }
    }

    /// Aborts the request on this connection. Returns a future that completes when the pod has closed its side, or
    /// after a few seconds; `None` for HTTP/2, where a pod is told and does not confirm.
    pub(crate) fn abort(self) -> Option<impl Future<Output = ()> + Send + use<>> {
        match self.sender {
            Sender::Http1(Http1Connection { stream, .. }) => Some(stream.close()),
            Sender::Http2(_) => None,
        }
    }

    /// Returns the connection to the pool after the end of the response.
    pub(crate) fn recycle(self, endpoint: &Arc<Endpoint>) {
        if let Sender::Http1(connection) = self.sender
            && endpoint.pool.put(connection)
        {
            tokio::spawn(close_expired(Arc::downgrade(endpoint)));
        }
    }
}

/// Closes idle connections that have reached their limit, as long as there are any.
async fn close_expired(endpoint: Weak<Endpoint>) {
    loop {
        let next = endpoint.upgrade().and_then(|endpoint| endpoint.pool.close_expired(Instant::now()));
        let Some(next) = next else { return };
        sleep_until(next.max(Instant::now() + LEAST_INTERVAL)).await;
    }
}
