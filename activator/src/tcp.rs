//! Reading from and writing to a TCP connection with as few system calls as can be.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// Up to so many bytes in several slices are put together and written as one: a head and a short body cost less to copy than
/// a vectored write costs more than a plain one.
const COPIED: usize = 2 << 10;

/// Reads what is there.
///
/// What did not fill the buffer has emptied the socket, and the next read would only say so. Tokio knows that for a stream
/// that is read by its owner; this one is shared with the requests on it.
pub(crate) fn poll_read(stream: &TcpStream, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let space = buffer.remaining();
        let mut taken = None;
        // "Would block" has the readiness forgotten that was there before the read. One that came after it stays.
        let tried = stream.try_io(Interest::READABLE, || {
            let read = stream.try_read_buf(buffer)?;
            taken = Some(read);
            if read > 0 && read < space { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match tried {
            _ if taken.is_some() => return Poll::Ready(Ok(())),
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
            _ => {}
        }
    }
}

/// Writes what fits.
pub(crate) fn poll_write(stream: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Writes what fits of several slices.
pub(crate) fn poll_write_vectored(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = slices {
        return poll_write(stream, cx, only);
    }
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    if total <= COPIED {
        let mut whole = [0; COPIED];
        let mut filled = 0;
        for slice in slices {
            whole[filled..filled + slice.len()].copy_from_slice(slice);
            filled += slice.len();
        }
        return poll_write(stream, cx, &whole[..filled]);
    }
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_write_vectored(slices) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// A connection to a pod as the HTTP client reads and writes it.
#[derive(Debug)]
pub(crate) struct PodSocket(pub(crate) TcpStream);

impl AsyncRead for PodSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PodSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        poll_write(&self.0, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_write_vectored(&self.0, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
