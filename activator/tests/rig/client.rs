//! Clients: one that sends HTTP, and one that sends bytes.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::GENEROUS;

pub(crate) type Sent = BoxBody<Bytes, std::convert::Infallible>;

/// An HTTP/1.1 connection.
pub(crate) struct Client {
    pub(crate) sender: http1::SendRequest<Sent>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

impl Client {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { connection.with_upgrades().await.ok() });
        Self { sender }
    }

    pub(crate) async fn begin(&mut self, request: Request<Sent>) -> Response<Incoming> {
        // The connection's task may not have seen the end of the previous response yet.
        timeout(GENEROUS, self.sender.ready()).await.expect("the connection stays busy").unwrap();
        timeout(GENEROUS, self.sender.send_request(request)).await.expect("no answer").unwrap()
    }

    pub(crate) async fn send(&mut self, request: Request<Sent>) -> Answer {
        let response = self.begin(request).await;
        let (parts, body) = response.into_parts();
        let body = timeout(GENEROUS, body.collect()).await.expect("no end of the answer").unwrap();
        let trailers = body.trailers().cloned();
        Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers }
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Answer {
        let request = Request::get(path).header("host", host).body(Full::default().boxed()).unwrap();
        self.send(request).await
    }
}

/// One GET on a connection of its own.
pub(crate) async fn get(to: SocketAddr, host: &str, path: &str) -> Answer {
    Client::connect(to).await.get(host, path).await
}

/// A connection with small buffers, so that what others hold can be told from what the kernel does.
pub(crate) async fn narrow(to: SocketAddr, bytes: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.set_send_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// Sends bytes as they are.
pub(crate) async fn raw(to: SocketAddr, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// Sends bytes as they are and reads until the other side closes.
pub(crate) async fn raw_answer(to: SocketAddr, bytes: &str) -> String {
    let mut stream = raw(to, bytes).await;
    let mut answer = vec![];
    timeout(GENEROUS, stream.read_to_end(&mut answer)).await.expect("the connection stays open").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads up to the end of a head.
pub(crate) async fn read_head(stream: &mut TcpStream) -> String {
    read_until(stream, "\r\n\r\n").await
}

/// Reads up to these words and not a byte further.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = vec![];
    timeout(GENEROUS, async {
        while !text.ends_with(end.as_bytes()) {
            text.push(
                stream.read_u8().await.unwrap_or_else(|e| panic!("{e} behind {:?}", String::from_utf8_lossy(&text))),
            );
        }
    })
    .await
    .unwrap_or_else(|_| panic!("no {end:?}"));
    String::from_utf8(text).unwrap()
}
