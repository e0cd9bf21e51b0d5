//! TCP reads and writes with as few system calls as possible.

use std::{
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// Several slices of up to this many bytes are copied together and written as one: copying a head and a short body
/// costs less than a vectored write costs more than a plain one.
const COPIED: usize = 2 << 10;

/// Reads what is available.
///
/// A read that did not fill the buffer has emptied the socket, and the next read would only return "would block". Tokio
/// knows that for a stream that its owner reads; this one is shared with the requests on it.
pub(crate) fn poll_read(stream: &TcpStream, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let space = buffer.remaining();
        let mut taken = None;
        // "Would block" clears the readiness that was there before the read. Readiness that came after it stays.
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

/// Writes as much as the socket takes.
pub(crate) fn poll_write(stream: &TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

/// Writes as much of several slices as the socket takes.
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

/// A connection to a pod, as the HTTP client reads and writes it.
#[derive(Debug)]
pub(crate) struct PodSocket(pub(crate) TcpStream);

impl PodSocket {
    /// Hides a write error while a response can still be read. A pod that responds before it has read the whole
    /// request, and closes, makes the next write fail. What is written then is lost in any case, and the response is
    /// read first.
    fn ignore_error_if_readable(
        &self,
        written: Poll<io::Result<usize>>,
        length: impl FnOnce() -> usize,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(Err(error)) = &written else { return written };
        if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
            return written;
        }
        // Asks the socket itself: its event may not have been seen yet.
        match SockRef::from(&self.0).peek(&mut [MaybeUninit::uninit()]) {
            Ok(1..) => Poll::Ready(Ok(length())),
            _ => written,
        }
    }
}

impl AsyncRead for PodSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PodSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = poll_write(&self.0, cx, bytes);
        self.ignore_error_if_readable(written, || bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = poll_write_vectored(&self.0, cx, slices);
        self.ignore_error_if_readable(written, || slices.iter().map(|slice| slice.len()).sum())
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
