//! The TCP stream of a connection to a pod, shared by the HTTP client and by whoever needs to know how it ended.

use std::{
    io::{self, ErrorKind, IoSlice},
    mem::MaybeUninit,
    net::Shutdown,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use crate::tcp;

/// How long after the end of a stream its reset may arrive: the request has to reach the pod, and the reset to come
/// back.
const RESET_DELAY: Duration = Duration::from_millis(250);

/// How long a pod may take to close a connection whose request was aborted, and how many bytes it may still send.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
const CLOSE_BYTES: usize = 64 << 10;

/// A TCP stream to a pod.
#[derive(Debug)]
pub(super) struct PodStream {
    stream: TcpStream,
    /// A byte of the response to the current request has arrived.
    responded: AtomicBool,
}

impl PodStream {
    pub(super) fn new(stream: TcpStream) -> Arc<Self> {
        Arc::new(Self { stream, responded: AtomicBool::new(false) })
    }

    /// Starts a request.
    pub(super) fn start_request(&self) {
        self.responded.store(false, Ordering::Relaxed);
    }

    /// Whether a byte of the response has arrived.
    pub(super) fn has_responded(&self) -> bool {
        self.responded.load(Ordering::Relaxed)
    }

    /// Whether the pod resets the stream, now that its end was read.
    ///
    /// The kernel of the pod resets a stream that is closed while bytes are unread, and one that gets bytes after it
    /// was closed. A process that read the whole request and then crashed closes its stream without a reset.
    pub(super) async fn is_reset(&self) -> bool {
        timeout(RESET_DELAY, self.stream.ready(Interest::ERROR)).await.is_ok()
    }

    /// Closes this side, and completes when the pod has closed its own. A pod that does neither read nor close is waited
    /// for until a timeout.
    pub(super) async fn close(self: Arc<Self>) {
        // It may be closed already.
        SockRef::from(&self.stream).shutdown(Shutdown::Write).ok();
        timeout(CLOSE_TIMEOUT, async {
            let mut surplus = 0;
            while surplus < CLOSE_BYTES && self.stream.readable().await.is_ok() {
                match self.stream.try_read(&mut [0; 4 << 10]) {
                    Ok(0) => return,
                    Ok(read) => surplus += read,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        })
        .await
        .ok();
    }

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
        match SockRef::from(&self.stream).peek(&mut [MaybeUninit::uninit()]) {
            Ok(1..) => Poll::Ready(Ok(length())),
            _ => written,
        }
    }
}

/// The stream as the HTTP client reads and writes it.
#[derive(Debug)]
pub(super) struct PodSocket(pub(super) Arc<PodStream>);

impl AsyncRead for PodSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = tcp::poll_read(&self.0.stream, cx, buffer, usize::MAX);
        if buffer.filled().len() > before {
            self.0.responded.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for PodSocket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = tcp::poll_write(&self.0.stream, cx, bytes);
        self.0.ignore_error_if_readable(written, || bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = tcp::poll_write_vectored(&self.0.stream, cx, slices);
        self.0.ignore_error_if_readable(written, || slices.iter().map(|slice| slice.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&self.0.stream).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (Arc<PodStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (PodStream::new(stream), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_request_that_crosses_the_closing_of_its_connection_is_reset() {
        let (stream, pod) = pair().await;
        drop(pod);
        let mut socket = PodSocket(stream.clone());
        // On loopback the reset may arrive before the end was read, and is an error then.
        socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let end = socket.read(&mut [0; 9]).await;
        assert!(end.is_err() || stream.is_reset().await);
        assert!(!stream.has_responded());
    }

    #[tokio::test]
    async fn a_stream_that_ends_after_the_request_was_read_is_not_reset() {
        let (stream, mut pod) = pair().await;
        let mut socket = PodSocket(stream.clone());
        socket.write_all(b"abc").await.unwrap();
        pod.read_exact(&mut [0; 3]).await.unwrap();
        drop(pod);
        assert_eq!(socket.read(&mut [0; 9]).await.unwrap(), 0);
        socket.shutdown().await.unwrap();
        assert!(!stream.is_reset().await);
    }

    #[tokio::test]
    async fn closing_waits_for_the_pod() {
        let (stream, mut pod) = pair().await;
        let closing = tokio::spawn(stream.close());
        assert_eq!(pod.read(&mut [0; 9]).await.unwrap(), 0, "this side is closed at once");
        pod.write_all(b"late").await.unwrap();
        tokio::task::yield_now().await;
        assert!(!closing.is_finished());
        drop(pod);
        closing.await.unwrap();
        // A pod that goes on sending is not read for long.
        let (stream, mut pod) = pair().await;
        let closing = tokio::spawn(stream.close());
        while pod.write_all(&[0; 4 << 10]).await.is_ok() {}
        closing.await.unwrap();
    }
}
