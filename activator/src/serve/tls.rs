//! TLS on client connections.
//!
//! The head guard reads the decrypted bytes; the TCP connection below stays shared with the disconnect watcher.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::send_timeout::WriteProgress;
use crate::tcp;

/// The TLS stream of a connection.
pub(super) type Secured = Box<TlsStream<Ciphered>>;

/// The TCP connection below, and the progress of writes to it.
#[derive(Debug)]
pub(super) struct Ciphered(Arc<TcpStream>, Arc<WriteProgress>);

/// Performs the handshake within this time.
///
/// # Errors
///
/// If the client does not speak TLS, accepts no common parameters, disconnects, or times out.
pub(super) async fn accept(
    config: Arc<ServerConfig>,
    stream: Arc<TcpStream>,
    written: Arc<WriteProgress>,
    within: Duration,
) -> io::Result<Secured> {
    // Boxed, since an established connection has no use for it.
    let handshake = Box::pin(TlsAcceptor::from(config).accept(Ciphered(stream, written)));
    timeout(within, handshake).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(Box::new)
}

/// Reads decrypted bytes and appends them to `kept`. Returns 0 at the end.
pub(super) fn poll_piece<const PIECE: usize>(
    tls: &mut Secured,
    cx: &mut Context<'_>,
    kept: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let mut piece = [0; PIECE];
    let mut buffer = ReadBuf::new(&mut piece);
    ready!(Pin::new(tls).poll_read(cx, &mut buffer))?;
    kept.extend_from_slice(buffer.filled());
    Poll::Ready(Ok(buffer.filled().len()))
}

/// Reads decrypted bytes, at most `limit`.
pub(super) fn poll_read(
    tls: &mut Secured,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
    limit: usize,
) -> Poll<io::Result<()>> {
    if limit >= buffer.remaining() {
        return Pin::new(tls).poll_read(cx, buffer);
    }
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(limit));
    ready!(Pin::new(tls).poll_read(cx, &mut part))?;
    let count = part.filled().len();
    buffer.advance(count);
    Poll::Ready(Ok(()))
}

impl AsyncRead for Ciphered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        tcp::poll_read(&self.0, cx, buffer, usize::MAX)
    }
}

impl AsyncWrite for Ciphered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = tcp::poll_write(&self.0, cx, bytes);
        self.1.record(&written, bytes.len());
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = tcp::poll_write_vectored(&self.0, cx, slices);
        self.1.record(&written, slices.iter().map(|slice| slice.len()).sum());
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The socket closes the connection after close_notify.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
