//! A hostile client's connection.

use std::{net::Shutdown, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use super::{
    rig::{Authority, GENEROUS, Rig, frames},
    table::*,
};

pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A hostile client's connection.
pub(crate) struct Wire {
    io: Box<dyn Io>,
    /// The TCP connection below.
    tcp: std::net::TcpStream,
    pub(crate) peer: Peer,
    pub(crate) protocol: Protocol,
    pub(crate) phase: Phase,
    function: String,
}

/// Flag of an acknowledged SETTINGS frame.
const ACK: u8 = 1;
/// Between two bytes of a slow client.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two parts of a slow HTTP/2 head; the library accepts a few CONTINUATION frames only.
const LONG_PAUSE: Duration = Duration::from_millis(400);

impl Wire {
    pub(crate) async fn connect(
        rig: &Rig,
        authority: &Authority,
        (peer, protocol, phase): (Peer, Protocol, Phase),
        function: &str,
    ) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let to = if protocol == TlsHttp2 { rig.tls.unwrap() } else { rig.public };
        let stream = socket.connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = stream.into_std().unwrap();
        let tcp = stream.try_clone().unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        let io: Box<dyn Io> = match protocol {
            TlsHttp2 => Box::new(timeout(GENEROUS, authority.try_connect(stream, &["h2"])).await.unwrap().unwrap()),
            Http1 | H2c | Tunnel => Box::new(stream),
        };
        let mut wire = Self { io, tcp, peer, protocol, phase, function: function.to_owned() };
        if wire.is_http2() {
            // SETTINGS_INITIAL_WINDOW_SIZE
            let window: &[u8] = if peer == ZeroWindow { &[0, 4, 0, 0, 0, 0] } else { &[] };
            wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            wire.send(&frames::frame(frames::SETTINGS, 0, 0, window)).await;
            if peer != NoSettingsAck {
                wire.send(&frames::frame(frames::SETTINGS, ACK, 0, &[])).await;
            }
        }
        wire
    }

    /// Resets the connection.
    pub(crate) fn reset(self) {
        SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.protocol, H2c | TlsHttp2)
    }

    fn has_body(&self) -> bool {
        self.phase == Uploading || self.peer == SendsBodySlowly
    }

    /// Sends bytes; the activator may have closed the connection.
    async fn send(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.ok();
    }

    /// Enters the phase: sends the head of its request.
    pub(crate) async fn begin(&mut self) {
        if self.phase == Idle && self.protocol != Tunnel {
            return;
        }
        self.send(&self.head(1)).await;
        if self.protocol == Tunnel && self.phase != Parked {
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n") {
                head.push(timeout(GENEROUS, self.io.read_u8()).await.expect("no response head").unwrap());
            }
        }
    }

    fn head(&self, stream: u32) -> Vec<u8> {
        let host = format!("{}.default.example.com", self.function);
        let mode = if self.phase == Downloading { "down" } else { "up" };
        let (method, path) = (if self.has_body() { "POST" } else { "GET" }, format!("/{}/{mode}", self.function));
        match self.protocol {
            Http1 => {
                let length = if self.has_body() { "Content-Length: 1000000\r\n" } else { "" };
                format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{length}\r\n").into_bytes()
            }
            Tunnel => {
                format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").into_bytes()
            }
            H2c | TlsHttp2 => {
                let block = [(":method", method), (":scheme", "http"), (":path", &path), (":authority", &host)];
                let end = if self.has_body() { 0 } else { frames::END_STREAM };
                frames::frame(frames::HEADERS, end | frames::END_HEADERS, stream, &frames::block(&block))
            }
        }
    }

    /// Is hostile, without end.
    pub(crate) async fn act(&mut self) {
        match self.peer {
            NeverSendsHead | NeverReads | ZeroWindow | NoSettingsAck => {}
            SendsHeadSlowly => self.send_head_slowly().await,
            SendsBodySlowly => loop {
                sleep(PAUSE).await;
                let byte = if self.is_http2() { frames::frame(frames::DATA, 0, 1, b"x") } else { b"x".to_vec() };
                self.send(&byte).await;
            },
            ReadsSlowly => loop {
                sleep(PAUSE).await;
                self.io.read_u8().await.ok();
            },
            HalfCloses if self.protocol == TlsHttp2 => {
                // Sends close_notify.
                self.io.shutdown().await.ok();
            }
            HalfCloses => self.tcp.shutdown(Shutdown::Write).unwrap(),
            ResetsInALoop => {
                // Of HTTP/2: a connection can be reset only once.
                for stream in 1..100 {
                    let stream = 2 * stream + 1;
                    // CANCEL
                    let reset = frames::frame(frames::RESET, 0, stream, &[0, 0, 0, 8]);
                    self.send(&[self.head(stream), reset].concat()).await;
                }
                self.send(&frames::frame(frames::RESET, 0, 1, &[0, 0, 0, 8])).await;
            }
            UrgentByte => {
                SockRef::from(&self.tcp).send_out_of_band(b"!").unwrap();
            }
        }
    }

    async fn send_head_slowly(&mut self) {
        if self.is_http2() {
            let block = frames::block(&[(":method", "GET")]);
            self.send(&frames::frame(frames::HEADERS, frames::END_STREAM, 1, &block[..1])).await;
            loop {
                sleep(LONG_PAUSE).await;
                self.send(&frames::frame(frames::CONTINUATION, 0, 1, &block[1..2])).await;
            }
        }
        self.send(b"GET / HTTP/1.1\r\nX: ").await;
        loop {
            sleep(PAUSE).await;
            self.send(b"x").await;
        }
    }
}
