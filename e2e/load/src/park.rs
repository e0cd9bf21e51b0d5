//! A crowd of requests that wait, and what becomes of each of them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
};

/// Connections from one address of loopback; more would run out of ports.
const PER_SOURCE: usize = 20_000;

#[derive(Args, Clone, Debug)]
pub(crate) struct Crowd {
    /// Who is asked.
    #[arg(long)]
    target: SocketAddr,
    /// The hosts that are asked for, in turns.
    #[arg(long = "host", required = true)]
    hosts: Vec<String>,
    /// Connections.
    #[arg(long)]
    connections: usize,
    /// Requests on each. One goes by HTTP/1.1; several go by HTTP/2, as through an ingress that speaks it.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Bytes of each request's body; a GET without one if zero.
    #[arg(long, default_value_t = 0)]
    body: usize,
}

/// What has become of the requests.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicUsize,
    ok: AtomicUsize,
    too_many: AtomicUsize,
    too_many_without_retry_after: AtomicUsize,
    others: AtomicUsize,
    broken: AtomicUsize,
    unconnected: AtomicUsize,
    first_other: OnceLock<String>,
}

#[derive(Debug, Serialize)]
struct State {
    /// Written, or handed to the connection that will.
    sent: usize,
    /// Answered with 200.
    ok: usize,
    /// Answered with 429.
    too_many: usize,
    /// Those of them that did not say when to come again.
    too_many_without_retry_after: usize,
    /// Answered with something else.
    others: usize,
    /// Ended by the other side without an answer.
    broken: usize,
    /// Never sent, for want of a connection.
    unconnected: usize,
    /// Without an end so far.
    waiting: usize,
    /// The first answer of another kind.
    first_other: Option<String>,
}

/// Sends the crowd, and answers each line on stdin until that ends.
///
/// # Errors
///
/// If there is no runtime, or a host is none. What becomes of a request is counted.
pub(crate) fn run(crowd: Crowd) -> Result<()> {
    ensure!(crowd.streams > 0, "no streams");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let counts = Arc::new(Counts::default());
        let crowd = Arc::new(crowd);
        let sending = tokio::spawn(send(crowd, counts.clone()));
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while lines.next_line().await?.is_some() {
            println!("{}", serde_json::to_string(&counts.state())?);
        }
        sending.abort();
        Ok(())
    })
}

async fn send(crowd: Arc<Crowd>, counts: Arc<Counts>) {
    for number in 0..crowd.connections {
        let connected = connect(crowd.target, number);
        match connected {
            Ok(stream) => drop(tokio::spawn(one(stream, number, crowd.clone(), counts.clone()))),
            Err(error) => {
                if counts.unconnected.fetch_add(crowd.streams, Relaxed) == 0 {
                    eprintln!("connection {number}: {error:#}");
                }
            }
        }
        // The answers that have come meanwhile are taken, and no more connections are made than are accepted.
        tokio::task::yield_now().await;
    }
}

/// Sends the requests of one connection and waits for what becomes of them.
async fn one(stream: TcpStream, number: usize, crowd: Arc<Crowd>, counts: Arc<Counts>) {
    let io = TokioIo::new(stream);
    if crowd.streams == 1 {
        let Ok((mut sender, connection)) = http1::handshake(io).await else { return counts.end(Err(())) };
        tokio::spawn(connection);
        counts.sent.fetch_add(1, Relaxed);
        let ended = crowd.request(number).map(|request| sender.send_request(request));
        return match ended {
            Ok(answer) => counts.take(answer.await).await,
            Err(_) => counts.end(Err(())),
        };
    }
    let handshake = http2::Builder::new(TokioExecutor::new()).handshake(io).await;
    let Ok((sender, connection)) = handshake else {
        counts.broken.fetch_add(crowd.streams, Relaxed);
        return;
    };
    tokio::spawn(connection);
    for stream in 0..crowd.streams {
        let (mut sender, crowd, counts) = (sender.clone(), crowd.clone(), counts.clone());
        tokio::spawn(async move {
            counts.sent.fetch_add(1, Relaxed);
            match crowd.request(number * crowd.streams + stream) {
                Ok(request) => counts.take(sender.send_request(request).await).await,
                Err(_) => counts.end(Err(())),
            }
        });
    }
}

impl Crowd {
    fn request(&self, number: usize) -> Result<Request<Full<Bytes>>> {
        let host = &self.hosts[number % self.hosts.len()];
        let request = Request::builder();
        let request = if self.streams == 1 {
            request.uri("/").header(header::HOST, host)
        } else {
            request.uri(format!("http://{host}/"))
        };
        let method = if self.body == 0 { Method::GET } else { Method::POST };
        // One body serves all requests, so that this side's memory bounds nothing.
        request.method(method).body(Full::new(body(self.body))).context("not a request")
    }
}

fn body(length: usize) -> Bytes {
    static BODY: [u8; 1 << 20] = [b'x'; 1 << 20];
    Bytes::from_static(&BODY[..length.min(BODY.len())])
}

impl Counts {
    async fn take(&self, answer: Result<Response<Incoming>, hyper::Error>) {
        let Ok(answer) = answer else { return self.end(Err(())) };
        let (parts, body) = answer.into_parts();
        let Ok(body) = body.collect().await else { return self.end(Err(())) };
        if !matches!(parts.status, StatusCode::OK | StatusCode::TOO_MANY_REQUESTS) {
            let text = || format!("{} {}", parts.status, String::from_utf8_lossy(&body.to_bytes()));
            self.first_other.get_or_init(text);
        }
        self.end(Ok((parts.status, parts.headers.get(header::RETRY_AFTER))));
    }

    fn end(&self, how: Result<(StatusCode, Option<&HeaderValue>), ()>) {
        let counter = match how {
            Ok((StatusCode::OK, _)) => &self.ok,
            Ok((StatusCode::TOO_MANY_REQUESTS, retry_after)) => {
                self.too_many_without_retry_after.fetch_add(usize::from(retry_after.is_none()), Relaxed);
                &self.too_many
            }
            Ok(_) => &self.others,
            Err(()) => &self.broken,
        };
        counter.fetch_add(1, Relaxed);
    }

    fn state(&self) -> State {
        let mut state = State {
            sent: self.sent.load(Relaxed),
            ok: self.ok.load(Relaxed),
            too_many: self.too_many.load(Relaxed),
            too_many_without_retry_after: self.too_many_without_retry_after.load(Relaxed),
            others: self.others.load(Relaxed),
            broken: self.broken.load(Relaxed),
            unconnected: self.unconnected.load(Relaxed),
            waiting: 0,
            first_other: self.first_other.get().cloned(),
        };
        let ended = state.ok + state.too_many + state.others + state.broken;
        state.waiting = state.sent.saturating_sub(ended);
        state
    }
}

/// A connection from one of several addresses of loopback.
fn connect(target: SocketAddr, number: usize) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    if target.ip().is_loopback() && target.is_ipv4() {
        let last = 2 + u8::try_from(number / PER_SOURCE).context("too many connections")?;
        // A port is only taken when it is connected, so that the same may serve for another target.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
    }
    socket.connect(&target.into()).with_context(|| format!("cannot connect to {target}"))?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_counted_once() {
        let counts = Counts::default();
        counts.sent.store(6, Relaxed);
        let soon = HeaderValue::from_static("1");
        counts.end(Ok((StatusCode::OK, None)));
        counts.end(Ok((StatusCode::TOO_MANY_REQUESTS, Some(&soon))));
        counts.end(Ok((StatusCode::TOO_MANY_REQUESTS, None)));
        counts.end(Ok((StatusCode::BAD_GATEWAY, None)));
        counts.end(Err(()));
        let state = counts.state();
        assert_eq!((state.ok, state.too_many, state.too_many_without_retry_after), (1, 2, 1));
        assert_eq!((state.others, state.broken, state.waiting), (1, 1, 1));
    }

    #[test]
    fn hosts_take_turns() {
        let hosts = ["a", "b"].map(str::to_owned).to_vec();
        let target = "127.0.0.1:1".parse().unwrap();
        let crowd = Crowd { target, hosts, connections: 1, streams: 2, body: 3 };
        let request = crowd.request(3).unwrap();
        assert_eq!((request.uri().to_string(), request.method()), ("http://b/".to_owned(), &Method::POST));
        assert_eq!(body(16 << 10).len(), 16 << 10);
    }
}
