//! A client's connection as the HTTP server reads and writes it.
//!
//! The socket is shared with the requests on it, which watch it for the client's leaving, so it is read and written through
//! a shared reference.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::heads::{HeadReader, HeadVerdict};
use crate::tcp;

#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    heads: HeadReader,
    verdict: Arc<HeadVerdict>,
}

impl Socket {
    pub(super) fn new(stream: Arc<TcpStream>, verdict: Arc<HeadVerdict>) -> Self {
        Self { stream, heads: HeadReader::default(), verdict }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        ready!(tcp::poll_read(&this.stream, cx, buffer))?;
        this.heads.read(&buffer.filled()[before..], &this.verdict);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        tcp::poll_write(&self.stream, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        tcp::poll_write_vectored(&self.stream, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&*self.stream).shutdown(std::net::Shutdown::Write) {
            // The client was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}
