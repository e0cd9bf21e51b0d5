//! A client connection, as the HTTP server reads and writes it.
//!
//! Bytes that the head guard has not passed are kept here and not shown to the server: it sees complete heads, or none.
//! The socket is shared with the disconnect watcher, so it is read and written through a shared reference.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::{
    connections::Slot,
    head_guard::{HeadGuard, Inspected, Rejected},
    limits::Limits,
    send_timeout::{SendTimeout, WriteProgress},
    tls::{self, Secured},
};
use crate::{
    downstream::{ConnectionState, Fault, LazyTimer},
    metrics::OpenConnection,
    tcp,
};

/// Protocol of a connection, detected by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// A client connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// The TLS stream, if the connection uses TLS.
    tls: Option<Secured>,
    shared: Arc<ConnectionState>,
    written: Arc<WriteProgress>,
    send_timeout: SendTimeout,
    limits: Limits,
    heads: HeadGuard,
    /// Bytes that the guard has not passed: at most a head and what followed it in one read.
    pending: Vec<u8>,
    /// Bytes that the guard has passed; those from `copied` on have not been read by the server.
    ready: Vec<u8>,
    copied: usize,
    /// A head has been passed.
    used: bool,
    /// Set after a fault; nothing more is read.
    rejected: Option<Rejected>,
    /// The client has closed its side.
    ended: bool,
    /// When the wait for a request, or for the rest of its head, began.
    since: Option<Instant>,
    timer: LazyTimer,
    /// Until when a TLS client may take to read the data before close_notify.
    close_notify_deadline: Option<Instant>,
    /// Until when a closed connection is still read.
    linger: Option<Instant>,
    counted: Counted,
}

/// What a connection counts as, until it is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    /// Its connection slot.
    slot: Slot,
    /// The gauge of its protocol.
    open: OpenConnection,
}

/// With less space than this in the server's buffer a separate one is used, or a head would take many reads.
const SMALL: usize = 512;
/// Size of a read into that.
const PIECE: usize = 4 << 10;

/// How long a client that is still sending is read after its connection has been closed. Closing at once would reset
/// the connection, and the client might never see the response.
const LINGER: Duration = Duration::from_secs(5);

impl Counted {
    pub(super) fn new(slot: Slot, open: OpenConnection) -> Self {
        Self { slot, open }
    }
}

impl Socket {
    pub(super) fn new(
        (stream, tls): (Arc<TcpStream>, Option<Secured>),
        shared: Arc<ConnectionState>,
        written: Arc<WriteProgress>,
        limits: Limits,
        counted: Counted,
    ) -> Self {
        Self {
            stream,
            tls,
            shared,
            written,
            send_timeout: SendTimeout::new(limits.send),
            limits,
            heads: HeadGuard::new(limits),
            pending: Vec::new(),
            ready: Vec::new(),
            copied: 0,
            used: false,
            rejected: None,
            ended: false,
            since: None,
            timer: LazyTimer::default(),
            close_notify_deadline: None,
            linger: None,
            counted,
        }
    }

    /// Reads until the protocol is known; `None` if the client closes or times out before it sends anything.
    /// Cancel-safe.
    pub(super) async fn version(&mut self) -> io::Result<Option<Version>> {
        std::future::poll_fn(|cx| {
            while self.ready.is_empty() {
                if self.ended {
                    return Poll::Ready(Ok(None));
                }
                ready!(self.poll_pending(cx))?;
            }
            let (version, protocol) =
                if self.shared.is_http2() { (Version::Http2, "http2") } else { (Version::Http1, "http1") };
            self.counted.open.set_protocol(protocol);
            Poll::Ready(Ok(Some(version)))
        })
        .await
    }

    /// Whether no byte of a request has arrived, here or in the kernel.
    pub(super) fn is_silent(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let mut unread = || SockRef::from(&*self.stream).peek(&mut byte).is_ok_and(|count| count > 0);
        self.pending.is_empty() && self.ready.is_empty() && !unread()
    }

    /// Returns a future that completes when the connection is to be closed while it is idle.
    pub(super) fn closed_early(&self) -> impl Future<Output = ()> + Send + use<> {
        self.counted.slot.closed()
    }

    /// Reads more bytes after the pending ones, and inspects them.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, tls, pending, .. } = self;
        let read = match tls {
            None => poll_stream(stream, cx, || {
                // Reserved only once there is something to read: an idle connection has no buffer.
                pending.reserve(PIECE);
                stream.try_read_buf(pending)
            }),
            Some(tls) => tls::poll_piece::<PIECE>(tls, cx, pending),
        };
        let count = match read {
            Poll::Ready(count) => count?,
            Poll::Pending => return self.poll_read_timeout(cx).map(Ok),
        };
        if count == 0 {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        self.counted.slot.set_busy();
        if !self.heads.begun(&self.pending[..self.pending.len() - count]) {
            // The timeout of a head starts at its first byte.
            self.since = None;
        }
        let inspected = self.heads.read(&self.pending, &self.shared);
        self.apply(&inspected);
        Poll::Ready(Ok(()))
    }

    /// Applies the result of the guard to the pending bytes.
    fn apply(&mut self, inspected: &Inspected) {
        if inspected.pass == self.pending.len() {
            self.ready = std::mem::take(&mut self.pending);
        } else if inspected.pass > 0 {
            let rest = self.pending.split_off(inspected.pass);
            self.ready = std::mem::replace(&mut self.pending, rest);
        }
        self.copied = 0;
        self.used |= inspected.pass > 0;
        if let Some(rejected) = inspected.rejected {
            self.reject(rejected);
        }
    }

    fn reject(&mut self, rejected: Rejected) {
        self.pending = Vec::new();
        self.rejected = Some(rejected);
        if matches!(rejected, Rejected::Head(_)) {
            self.ready.extend_from_slice(self.heads.placeholder());
        }
    }

    /// Completes when the read timeout has passed: the connection then ends, or the head that has begun is rejected.
    fn poll_read_timeout(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.heads.in_head() {
            return Poll::Pending;
        }
        let begun = self.heads.begun(&self.pending);
        if !begun {
            self.counted.slot.set_idle();
        }
        let limit = match (begun, self.used) {
            (true, _) => self.limits.head_time,
            (false, false) => self.limits.first_request,
            (false, true) => self.limits.idle,
        };
        let until = *self.since.get_or_insert_with(Instant::now) + limit;
        ready!(self.timer.poll_until(cx, until));
        if begun {
            self.heads.too_slow(&self.shared);
            self.reject(Rejected::Head(Fault::Slow));
        } else {
            self.ended = true;
        }
        Poll::Ready(())
    }

    /// Copies passed bytes into the server's buffer, as far as there is space.
    fn copy_ready(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = (self.ready.len() - self.copied).min(buffer.remaining());
        buffer.put_slice(&self.ready[self.copied..self.copied + count]);
        self.copied += count;
        if self.copied == self.ready.len() {
            // An idle connection keeps no buffer.
            (self.ready, self.copied) = (Vec::new(), 0);
        }
    }

    /// Reads straight into the server's buffer, which is the usual case.
    fn poll_into(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let limit = self.heads.read_limit();
        let read = match &mut self.tls {
            None => tcp::poll_read(&self.stream, cx, buffer, limit),
            Some(tls) => tls::poll_read(tls, cx, buffer, limit),
        };
        match read {
            Poll::Ready(read) => read?,
            Poll::Pending => return self.poll_read_timeout(cx).map(Ok),
        }
        self.ended = buffer.filled().len() == before;
        self.since = None;
        // An HTTP/2 connection that is closed early ends after its streams, so nothing else has to be known of it.
        if self.shared.is_http2() {
            self.counted.slot.touch();
        } else {
            self.counted.slot.set_busy();
        }
        let inspected = self.heads.read(&buffer.filled()[before..], &self.shared);
        let passed = before + inspected.pass;
        self.used |= inspected.pass > 0;
        if passed < buffer.filled().len() {
            self.pending.extend_from_slice(&buffer.filled()[passed..]);
            buffer.set_filled(passed);
        }
        if let Some(rejected) = inspected.rejected {
            self.reject(rejected);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ready.is_empty() {
            // The server has read the whole last request, and reads on once it has responded.
            let tunnel = this.shared.is_tunnel();
            this.heads.finish_upgrade(tunnel);
            if tunnel {
                this.counted.open.set_protocol("tunnel");
            }
        }
        let before = buffer.filled().len();
        while buffer.filled().len() == before {
            if !this.ready.is_empty() {
                this.copy_ready(buffer);
                break;
            }
            match this.rejected {
                // The response to the placeholder ends the connection.
                Some(Rejected::Head(_)) => return Poll::Pending,
                Some(Rejected::Body(fault)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault.detail())));
                }
                None if this.ended => break,
                None => {}
            }
            if !this.pending.is_empty() {
                // Bytes after an upgrade request, or the beginning of a head.
                let inspected = this.heads.read(&this.pending, &this.shared);
                if inspected.pass > 0 || inspected.rejected.is_some() {
                    this.apply(&inspected);
                    continue;
                }
            }
            let small = this.heads.in_head() && buffer.remaining() < SMALL;
            if small || !this.pending.is_empty() {
                ready!(this.poll_pending(cx))?;
            } else {
                ready!(this.poll_into(cx, buffer))?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.tls {
            None => {
                let written = tcp::poll_write(&self.stream, cx, bytes);
                self.written.record(&written, bytes.len());
                written
            }
            Some(tls) => Pin::new(tls).poll_write(cx, bytes),
        };
        self.poll_send_timeout(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.tls {
            None => {
                let written = tcp::poll_write_vectored(&self.stream, cx, slices);
                self.written.record(&written, slices.iter().map(|slice| slice.len()).sum());
                written
            }
            Some(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        };
        self.poll_send_timeout(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(())) };
        let flushed = Pin::new(tls).poll_flush(cx);
        self.poll_send_timeout(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(this.poll_close_notify(cx))?;
            match SockRef::from(&*this.stream).shutdown(std::net::Shutdown::Write) {
                // The client has closed already.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Poll::Ready(Ok(())),
                result => result?,
            }
            if this.ended || !this.heads.in_body() {
                return Poll::Ready(Ok(()));
            }
            this.linger = Some(Instant::now() + LINGER);
        }
        this.poll_linger(cx).map(Ok)
    }
}

impl Socket {
    /// Fails if writes are blocked for too long.
    fn poll_send_timeout<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            return polled;
        }
        let result = ready!(self.send_timeout.poll(cx, polled, &self.written, self.shared.idle_timeout()));
        // The kernel would keep what the client does not read for minutes after a close. A reset drops it.
        SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO)).ok();
        Poll::Ready(result)
    }

    /// Sends close_notify. A client that does not read does not receive it.
    fn poll_close_notify(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(())) };
        if let Poll::Ready(said) = Pin::new(tls).poll_shutdown(cx) {
            return Poll::Ready(said);
        }
        let until = *self.close_notify_deadline.get_or_insert_with(|| Instant::now() + LINGER);
        self.timer.poll_until(cx, until).map(Ok)
    }

    /// Reads and drops what a client is still sending, for a limited time.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut nowhere = [0; PIECE];
        let Some(until) = self.linger else { return Poll::Ready(()) };
        let (stream, over) = (&self.stream, until <= Instant::now());
        loop {
            match poll_stream(stream, cx, || stream.try_read(&mut nowhere)) {
                // The client has closed, or is gone.
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) if over => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return self.timer.poll_until(cx, until),
            }
        }
    }
}

/// Reads once without blocking.
fn poll_stream(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    mut read: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        match read() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}
