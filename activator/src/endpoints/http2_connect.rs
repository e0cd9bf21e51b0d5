//! Opening of an HTTP/2 connection to a pod.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    announced::{Announced, AnnouncementReader, AnnouncingSocket},
    dial::{CONNECT, DialError, Dialer},
    pod_stream::{PodSocket, PodStream},
};
use crate::body::RequestBody;

pub(super) type Sender = http2::SendRequest<RequestBody>;

/// What happens on a connection that its owner has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionEvent {
    /// Some time has passed.
    Tick,
    /// The connection has ended.
    Ended,
}

/// Interval of [`ConnectionEvent::Tick`].
const TICK: Duration = Duration::from_secs(10);

/// Bytes of a response that a pod may send while the client does not read.
const STREAM_WINDOW: u32 = 64 << 10;
/// The same for all responses of a connection: a thousand slow clients do not block the others.
const CONNECTION_WINDOW: u32 = 1000 * STREAM_WINDOW;
/// Bytes of a request body that are buffered for a pod that does not read.
const SEND_BUFFER: usize = 64 << 10;
/// Maximum size of a head or of trailers of a pod, with 32 bytes for each field (RFC 9113, section 6.5.2). Larger ones reset
/// the stream.
const HEAD_LIST: u32 = 64 << 10;
/// Compressed fields that the pod may refer to.
const HEADER_TABLE: u32 = 4 << 10;
/// Streams before the pod has announced how many it takes. Requests are sent later than that.
const UNANNOUNCED: usize = 1;
/// Interval and timeout of pings while there are streams: detects a pod that vanished. A long idle stream stays open.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_LIMIT: Duration = Duration::from_secs(20);

/// Connects, and waits for the settings of the pod: it announces in them how many streams it takes, and refuses those beyond.
///
/// # Errors
///
/// If the connect fails, or the pod sends no settings in time: it does not speak HTTP/2.
pub(super) async fn connect(
    dialer: &Dialer,
    address: SocketAddr,
    on_event: impl Fn(ConnectionEvent) + Send + 'static,
) -> Result<(Sender, Arc<Announced>), DialError> {
    let begun = Instant::now();
    let announced = Arc::<Announced>::default();
    let socket = PodSocket(PodStream::new(dialer.connect(address, CONNECT).await?));
    let io = AnnouncingSocket { socket, reader: AnnouncementReader::default(), announced: announced.clone() };
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_LIMIT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(UNANNOUNCED)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEAD_LIST)
        .header_table_size(HEADER_TABLE);
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    let (ended, mut has_ended) = tokio::sync::oneshot::channel::<()>();
    // Ends with the connection, which the drop of the last sender closes.
    tokio::spawn(async move {
        // Dropped at the end.
        let _ended = ended;
        let mut connection = pin!(connection);
        let result = loop {
            match timeout(TICK, connection.as_mut()).await {
                Ok(result) => break result,
                Err(_) => on_event(ConnectionEvent::Tick),
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "Connection to a pod ended with an error");
        }
        on_event(ConnectionEvent::Ended);
    });
    let settled = async {
        tokio::select! {
            biased;
            () = announced.settled() => Ok(()),
            _ = &mut has_ended => Err(io::Error::other("the pod closed the connection; it does not speak HTTP/2")),
        }
    };
    timeout_at(begun + CONNECT, settled).await.map_err(|_| DialError::NoSettings(CONNECT))??;
    Ok((sender, announced))
}
