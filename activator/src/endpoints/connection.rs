//! A connection to a pod.
//!
//! It is known exactly whether a request was handed to a connection, which decides about a retry.

use std::{sync::Arc, time::Duration};

use futures::future::{Either, FutureExt as _};
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rouse_crds::function::Protocol;

use super::{
    dial::{DialError, Dialer},
    endpoint::Endpoint,
};
use crate::{body::RequestBody, tcp::PodSocket};

/// Connect timeout of a request. Long enough for a lost SYN to be sent again.
const CONNECT: Duration = Duration::from_secs(3);

/// HTTP/2: bytes of a response that a pod may send while the client does not read.
const STREAM_WINDOW: u32 = 64 << 10;
/// The same for all responses of a connection: a thousand slow clients do not block the others.
const CONNECTION_WINDOW: u32 = 1000 * STREAM_WINDOW;
/// HTTP/2: bytes of a request body that are buffered for a pod that does not read.
const SEND_BUFFER: usize = 64 << 10;

/// A connection that is ready for one request.
#[derive(Debug)]
pub struct Connection {
    sender: Sender,
    /// It has carried a request before.
    pub reused: bool,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>),
}

/// Result of sending a request on a connection.
#[derive(Debug)]
pub enum Sent {
    /// The head of the response.
    Response(Response<Incoming>),
    /// Not a byte of the request was written; here it is again.
    Unsent(Box<Request<RequestBody>>, hyper::Error),
    /// The pod may have received the request.
    Broken(hyper::Error),
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
        let io = TokioIo::new(PodSocket(dialer.connect(self.address, CONNECT).await?));
        let sender = match self.protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::Builder::new().handshake(io).await.map_err(std::io::Error::other)?;
                tokio::spawn(async move {
                    if let Err(error) = connection.with_upgrades().await {
                        tracing::debug!(%error, "Connection to a pod ended with an error");
                    }
                });
                Sender::Http1(sender)
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
        let sending = match &mut self.sender {
            Sender::Http1(sender) => Either::Left(sender.try_send_request(request)),
            Sender::Http2(sender) => Either::Right(sender.try_send_request(request)),
        };
        sending.map(|sent| match sent {
            Ok(response) => Sent::Response(response),
            Err(mut error) => match error.take_message() {
                Some(request) => Sent::Unsent(Box::new(request), error.into_error()),
                None => Sent::Broken(error.into_error()),
            },
        })
    }

    /// Returns the connection to the pool after the end of the response.
    pub(crate) fn recycle(self, endpoint: &Arc<Endpoint>) {
        if let Sender::Http1(sender) = self.sender {
            endpoint.pool.put(sender);
        }
    }
}
