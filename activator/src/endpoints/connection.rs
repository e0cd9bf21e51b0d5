//! A connection to a pod.
//!
//! It is known exactly whether a request was handed to a connection, which decides about a retry.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::Either;
use http::{HeaderMap, Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rouse_crds::function::Protocol;
use tokio::time::{Instant, sleep_until};

use super::{
    dial::{CONNECT, DialError, Dialer},
    endpoint::Endpoint,
    http1_connection::Http1Connection,
    http2::Stream,
    keep_alive,
    loss::{Loss, http1_loss, http2_loss},
    pod_stream::{PodSocket, PodStream},
};
use crate::body::RequestBody;

/// HTTP/1: bytes of a response that are read ahead of the client, and of a request that are buffered for a pod that does
/// not read.
const BUFFER: usize = 32 << 10;
/// HTTP/1: maximum number of fields in the head of a response. Its maximum size is that of the buffer.
const HEADERS: usize = 256;

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
    Http2(Stream),
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
        Some(match self.protocol {
            Protocol::Http1 => Connection { sender: Sender::Http1(self.pool.take_idle()?), reused: true },
            Protocol::H2c => Connection::of(self.pool.http2.take()?),
        })
    }

    /// Opens a new connection. For HTTP/2, returns a stream of an open one if there is one by then.
    ///
    /// # Errors
    ///
    /// If the connect fails, or the pod allows no further stream.
    pub async fn connect(&self, dialer: &Dialer) -> Result<Connection, DialError> {
        match self.protocol {
            Protocol::Http1 => {
                let stream = PodStream::new(dialer.connect(self.address, CONNECT).await?);
                let io = TokioIo::new(PodSocket(stream.clone()));
                let mut builder = http1::Builder::new();
                builder.max_buf_size(BUFFER).max_headers(HEADERS);
                let (sender, connection) = builder.handshake(io).await.map_err(std::io::Error::other)?;
                tokio::spawn(async move {
                    if let Err(error) = connection.with_upgrades().await {
                        tracing::debug!(%error, "Connection to a pod ended with an error");
                    }
                });
                let connection = Http1Connection { sender, stream, idle_limit: keep_alive::UNANNOUNCED };
                Ok(Connection { sender: Sender::Http1(connection), reused: false })
            }
            Protocol::H2c => Ok(Connection::of(self.pool.http2.stream(self.address, dialer).await?)),
        }
    }
}

impl Connection {
    fn of(stream: Stream) -> Self {
        Self { reused: stream.reused, sender: Sender::Http2(stream) }
    }

    /// Sends a request; the future waits for the head of the response. Dropping it aborts the request.
    ///
    /// The request is handed over before the future is made, so that it is not moved with it.
    pub fn send(&mut self, request: Request<RequestBody>) -> impl Future<Output = Sent> + use<> {
        let (sending, stream) = match &mut self.sender {
            Sender::Http1(connection) => {
                connection.stream.start_request();
                (Either::Left(connection.sender.try_send_request(request)), Some(connection.stream.clone()))
            }
            Sender::Http2(stream) => (Either::Right(stream.sender.try_send_request(request)), None),
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

    /// Returns the connection to the pool after the end of the response. A stream returns on its drop.
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
