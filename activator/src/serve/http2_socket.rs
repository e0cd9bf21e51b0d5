//! An HTTP/2 client connection, as the HTTP server reads and writes it: with tags on requests, and with windows by stream.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    stream_tags::StreamTagger,
    window_writer::{Next, WindowWriter},
};
use crate::downstream::StreamGrants;

/// Size of a read.
const READ: usize = 16 << 10;
/// Maximum number of slices in a write that ends before the last one.
const SLICES: usize = 4;

/// An HTTP/2 client connection.
#[derive(Debug)]
pub(super) struct Http2Socket<S> {
    socket: S,
    tagger: StreamTagger,
    /// Tagged bytes; those from `copied` on have not been read by the server.
    ready: Vec<u8>,
    copied: usize,
    windows: WindowWriter,
    grants: Arc<StreamGrants>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http2Socket<S> {
    pub(super) fn new(socket: S, grants: Arc<StreamGrants>) -> Self {
        let (tagger, windows) = (StreamTagger::new(), WindowWriter::default());
        Self { socket, tagger, ready: Vec::new(), copied: 0, windows, grants }
    }

    /// Writes grants, if a frame has ended. Completes when none is left.
    fn poll_grants(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.grants.writer.register(cx.waker());
        self.windows.add(&self.grants);
        while !self.windows.own().is_empty() {
            let count = ready!(Pin::new(&mut self.socket).poll_write(cx, self.windows.own()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.windows.own_written(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Http2Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // The task of the connection reads whenever it is woken, and a grant wakes it.
        if let Poll::Ready(written) = this.poll_grants(cx) {
            written?;
        }
        while this.copied == this.ready.len() {
            (this.ready, this.copied) = (Vec::new(), 0);
            let mut chunk = Vec::with_capacity(READ);
            let mut read = ReadBuf::uninit(chunk.spare_capacity_mut());
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.tagger.rewrite(read.filled(), &mut this.ready);
        }
        let count = (this.ready.len() - this.copied).min(buffer.remaining());
        buffer.put_slice(&this.ready[this.copied..this.copied + count]);
        this.copied += count;
        if this.copied == this.ready.len() {
            // An idle connection keeps no buffer.
            (this.ready, this.copied) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Http2Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_grants(cx))?;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let most = match this.windows.next(slices) {
            Next::Take(count) => return Poll::Ready(Ok(count)),
            Next::Pass(most) => most,
        };
        let written = if most == total {
            ready!(Pin::new(&mut this.socket).poll_write_vectored(cx, slices))?
        } else {
            let mut part = [IoSlice::new(&[]); SLICES];
            let (mut left, mut filled) = (most, 0);
            for slice in slices.iter().take(SLICES) {
                let count = slice.len().min(left);
                part[filled] = IoSlice::new(&slice[..count]);
                left -= count;
                filled += 1;
            }
            ready!(Pin::new(&mut this.socket).poll_write_vectored(cx, &part[..filled]))?
        };
        this.windows.passed(slices, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_grants(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
