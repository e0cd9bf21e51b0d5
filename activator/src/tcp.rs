//! TCP reads and writes with as few system calls as possible.

use std::{
    io::{self, ErrorKind, IoSlice},
    task::{Context, Poll, ready},
};

use bytes::BufMut as _;
use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
};

/// Several slices of up to this many bytes are copied together and written as one: copying a head and a short body
/// costs less than a vectored write costs more than a plain one.
const COPIED: usize = 2 << 10;

/// Reads what is available, at most `limit` bytes.
///
/// A read that did not fill the buffer has emptied the socket, and the next read would only return "would block". Tokio
/// knows that for a stream that its owner reads; this one is shared with the requests on it.
pub(crate) fn poll_read(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
    limit: usize,
) -> Poll<io::Result<()>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let space = buffer.remaining().min(limit);
        let mut taken = None;
        // "Would block" clears the readiness that was there before the read. Readiness that came after it stays.
        let tried = stream.try_io(Interest::READABLE, || {
            let read = stream.try_read_buf(&mut (&mut *buffer).limit(space))?;
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
        let mut whole = Vec::with_capacity(total);
        slices.iter().for_each(|slice| whole.extend_from_slice(slice));
        return poll_write(stream, cx, &whole);
    }
    loop {
        ready!(stream.poll_write_ready(cx))?;
        match stream.try_write_vectored(slices) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}
