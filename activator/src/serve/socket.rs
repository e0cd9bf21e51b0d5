//! A client's connection as the HTTP server reads and writes it.
//!
//! What the guard has not judged is kept here and not shown to the server: it sees whole heads, or none. The socket is shared
//! with the task that watches for the client's leaving, so it is read and written through a shared reference.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    heads::{HeadReader, Refused, Verdict},
    limits::Limits,
    tls::{self, Secured},
};
use crate::{
    downstream::{Fault, HeadVerdict},
    tcp,
};

/// What a connection speaks, as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// What has been written to a client.
#[derive(Debug, Default)]
pub(super) struct Written {
    bytes: AtomicU64,
    blocked: AtomicBool,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    /// What reads and writes it, if the client speaks TLS.
    tls: Option<Secured>,
    shared: Arc<HeadVerdict>,
    written: Arc<Written>,
    limits: Limits,
    heads: HeadReader,
    /// Read and not yet judged: at most a head and what came behind it in one read.
    kept: Vec<u8>,
    /// Judged, and on its way to the server from `given` on.
    ready: Vec<u8>,
    given: usize,
    /// Nothing more is read.
    refused: Option<Refused>,
    /// The client has said all that it will.
    ended: bool,
    /// When the waiting for a request, or for the rest of its head, began.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Until when a client by TLS may take to read what comes before the last word.
    farewell: Option<Instant>,
    /// Until when an ended connection is listened to.
    linger: Option<Instant>,
    /// Given back when the connection ends, as whatever it ends.
    _place: OwnedSemaphorePermit,
}

/// With less room than this the bytes are read into a buffer of one's own, or a head would take many reads.
const SMALL: usize = 512;
/// What is read at once into that.
const PIECE: usize = 4 << 10;

/// How long a client that is still sending is listened to after its connection has been answered and closed. Closing at once
/// would reset the connection, and the client might never see the answer.
const LINGER: Duration = Duration::from_secs(5);

impl Written {
    /// All bytes since the connection began.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the server has something to write that the socket does not take.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    fn note(&self, written: &Poll<io::Result<usize>>, wanted: usize) {
        let count = match written {
            Poll::Ready(Ok(count)) => *count,
            Poll::Ready(Err(_)) => return,
            Poll::Pending => 0,
        };
        // Only the connection's own task writes.
        self.bytes.store(self.bytes().wrapping_add(count as u64), Ordering::Relaxed);
        self.blocked.store(count < wanted, Ordering::Relaxed);
    }
}

impl Socket {
    pub(super) fn new(
        (stream, tls): (Arc<TcpStream>, Option<Secured>),
        shared: Arc<HeadVerdict>,
        written: Arc<Written>,
        limits: Limits,
        place: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            stream,
            tls,
            shared,
            written,
            limits,
            heads: HeadReader::new(limits),
            kept: Vec::new(),
            ready: Vec::new(),
            given: 0,
            refused: None,
            ended: false,
            since: None,
            timer: None,
            farewell: None,
            linger: None,
            _place: place,
        }
    }

    /// Reads until it is known what the client speaks; `None` if it says nothing and leaves, or for too long. Cancel-safe.
    pub(super) async fn version(&mut self) -> io::Result<Option<Version>> {
        std::future::poll_fn(|cx| {
            while self.ready.is_empty() {
                if self.ended {
                    return Poll::Ready(Ok(None));
                }
                ready!(self.poll_kept(cx))?;
            }
            let http2 = self.shared.is_http2();
            Poll::Ready(Ok(Some(if http2 { Version::Http2 } else { Version::Http1 })))
        })
        .await
    }

    /// Whether nothing of a request has come.
    pub(super) fn is_silent(&self) -> bool {
        self.kept.is_empty() && self.ready.is_empty()
    }

    /// Waits for bytes behind those that are kept, and judges them.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, tls, kept, .. } = self;
        let read = match tls {
            None => poll_stream(stream, cx, || {
                // Not before there is something: a silent connection has no buffer.
                kept.reserve(PIECE);
                stream.try_read_buf(kept)
            }),
            Some(tls) => tls::poll_piece::<PIECE>(tls, cx, kept),
        };
        let count = match read {
            Poll::Ready(count) => count?,
            Poll::Pending => return self.poll_patience(cx).map(Ok),
        };
        if count == 0 {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        if !self.heads.begun(&self.kept[..self.kept.len() - count]) {
            // The clock of a head runs from its first byte.
            self.since = None;
        }
        let verdict = self.heads.read(&self.kept, &self.shared);
        self.take(&verdict);
        Poll::Ready(Ok(()))
    }

    /// Makes of what is kept what the guard has said.
    fn take(&mut self, verdict: &Verdict) {
        if verdict.pass == self.kept.len() {
            self.ready = std::mem::take(&mut self.kept);
        } else if verdict.pass > 0 {
            let rest = self.kept.split_off(verdict.pass);
            self.ready = std::mem::replace(&mut self.kept, rest);
        }
        self.given = 0;
        if let Some(refused) = verdict.refused {
            self.refuse(refused);
        }
    }

    fn refuse(&mut self, refused: Refused) {
        self.kept = Vec::new();
        self.refused = Some(refused);
        if matches!(refused, Refused::Head(_)) {
            self.ready.extend_from_slice(self.heads.stand_in());
        }
    }

    /// Is over when a client has said nothing for longer than is waited: the connection then ends, or the head that it began
    /// is refused.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.heads.in_head() {
            return Poll::Pending;
        }
        let begun = self.heads.begun(&self.kept);
        let limit = if begun { self.limits.head_time } else { self.limits.idle };
        let until = *self.since.get_or_insert_with(Instant::now) + limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        // It is mostly set for long ago's end, and only set anew when that comes: a request costs no timer.
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if until <= Instant::now() {
                if begun {
                    self.heads.too_slow(&self.shared);
                    self.refuse(Refused::Head(Fault::Slow));
                } else {
                    self.ended = true;
                }
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
    }

    /// What is judged, as far as there is room for it.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = (self.ready.len() - self.given).min(buffer.remaining());
        buffer.put_slice(&self.ready[self.given..self.given + count]);
        self.given += count;
        if self.given == self.ready.len() {
            // An idle connection keeps no buffer.
            (self.ready, self.given) = (Vec::new(), 0);
        }
    }

    /// Reads straight into the server's buffer, which is what nearly always happens.
    fn poll_into(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.tls {
            None => tcp::poll_read(&self.stream, cx, buffer),
            Some(tls) => Pin::new(tls).poll_read(cx, buffer),
        };
        match read {
            Poll::Ready(read) => read?,
            Poll::Pending => return self.poll_patience(cx).map(Ok),
        }
        self.ended = buffer.filled().len() == before;
        self.since = None;
        let verdict = self.heads.read(&buffer.filled()[before..], &self.shared);
        let passed = before + verdict.pass;
        if passed < buffer.filled().len() {
            self.kept.extend_from_slice(&buffer.filled()[passed..]);
            buffer.set_filled(passed);
        }
        if let Some(refused) = verdict.refused {
            self.refuse(refused);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ready.is_empty() {
            // The server has read all of the last request, and reads on when it has answered it.
            this.heads.answered(this.shared.is_tunnel());
        }
        let before = buffer.filled().len();
        while buffer.filled().len() == before {
            if !this.ready.is_empty() {
                this.give(buffer);
                break;
            }
            match this.refused {
                // The answer to what stands in for it ends the connection.
                Some(Refused::Head(_)) => return Poll::Pending,
                Some(Refused::Body(fault)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, fault.detail())));
                }
                None if this.ended => break,
                None => {}
            }
            if !this.kept.is_empty() {
                // What was kept for an answer to come, or the beginning of a head.
                let verdict = this.heads.read(&this.kept, &this.shared);
                if verdict.pass > 0 || verdict.refused.is_some() {
                    this.take(&verdict);
                    continue;
                }
            }
            let small = this.heads.in_head() && buffer.remaining() < SMALL;
            if small || !this.kept.is_empty() {
                ready!(this.poll_kept(cx))?;
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
            None => tcp::poll_write(&self.stream, cx, bytes),
            Some(tls) => Pin::new(tls).poll_write(cx, bytes),
        };
        self.written.note(&written, bytes.len());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.tls {
            None => tcp::poll_write_vectored(&self.stream, cx, slices),
            Some(tls) => Pin::new(tls).poll_write_vectored(cx, slices),
        };
        self.written.note(&written, slices.iter().map(|slice| slice.len()).sum());
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.tls {
            None => Poll::Ready(Ok(())),
            Some(tls) => {
                let flushed = Pin::new(tls).poll_flush(cx);
                if flushed.is_pending() {
                    self.written.blocked.store(true, Ordering::Relaxed);
                }
                flushed
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(this.poll_farewell(cx))?;
            match SockRef::from(&*this.stream).shutdown(std::net::Shutdown::Write) {
                // The client was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Poll::Ready(Ok(())),
                result => result?,
            }
            if this.ended || !this.heads.in_body() {
                return Poll::Ready(Ok(()));
            }
            let until = Instant::now() + LINGER;
            this.linger = Some(until);
            this.timer = Some(Box::pin(sleep_until(until)));
        }
        this.poll_linger(cx).map(Ok)
    }
}

impl Socket {
    /// Says by TLS that nothing more comes. A client that does not read does not hear it.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(tls) = &mut self.tls else { return Poll::Ready(Ok(())) };
        if let Poll::Ready(said) = Pin::new(tls).poll_shutdown(cx) {
            return Poll::Ready(said);
        }
        let timer = match (self.farewell, &mut self.timer) {
            (Some(_), Some(timer)) => timer,
            (_, timer) => {
                let until = Instant::now() + LINGER;
                self.farewell = Some(until);
                timer.insert(Box::pin(sleep_until(until)))
            }
        };
        timer.as_mut().poll(cx).map(Ok)
    }

    /// Hears out a client that is still sending, for a while.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut nowhere = [0; PIECE];
        let (stream, over) = (&self.stream, self.linger.is_some_and(|until| until <= Instant::now()));
        loop {
            match poll_stream(stream, cx, || stream.try_read(&mut nowhere)) {
                // It has ended, or left.
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) if over => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => return self.timer.as_mut().map_or(Poll::Ready(()), |timer| timer.as_mut().poll(cx)),
            }
        }
    }
}

/// One read that does not block.
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
