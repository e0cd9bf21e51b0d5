//! Many parked requests, and the result of each.

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

/// Connections from one loopback address, which has a limited number of ports.
const PER_SOURCE: usize = 20_000;

#[derive(Args, Clone, Debug)]
pub(crate) struct Crowd {
    /// Address of the server.
    #[arg(long)]
    target: SocketAddr,
    /// Hosts of the requests, in round-robin order.
    #[arg(long = "host", required = true)]
    hosts: Vec<String>,
    /// Number of connections.
    #[arg(long)]
    connections: usize,
    /// Requests per connection: one by HTTP/1.1, several by HTTP/2, as from an ingress that uses it.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Body size of each request, in bytes; 0 sends a GET.
    #[arg(long, default_value_t = 0)]
    body: usize,
}

/// Results of the requests.
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
    /// Passed to a connection.
    sent: usize,
    /// Responses with 200.
    ok: usize,
    /// Responses with 429.
    too_many: usize,
    /// Responses with 429 and without `Retry-After`.
    too_many_without_retry_after: usize,
    /// Responses with another status.
    others: usize,
    /// Closed by the server without a response.
    broken: usize,
    /// Not sent, since the connection failed.
    unconnected: usize,
    /// Without a result so far.
    waiting: usize,
    /// First response with another status.
    first_other: Option<String>,
}

/// Sends the requests, and prints their state for each line on stdin until it is closed.
///
/// # Errors
///
/// If the runtime fails. Failed requests are counted.
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
        // Lets responses be read and connections be accepted meanwhile.
        tokio::task::yield_now().await;
    }
}

/// Sends the requests of one connection and records their results.
async fn one(stream: TcpStream, number: usize, crowd: Arc<Crowd>, counts: Arc<Counts>) {
    let io = TokioIo::new(stream);
    if crowd.streams == 1 {
        let Ok((mut sender, connection)) = http1::handshake(io).await else { return counts.record(Err(())) };
        tokio::spawn(connection);
        counts.sent.fetch_add(1, Relaxed);
        let response = crowd.request(number).map(|request| sender.send_request(request));
        return match response {
            Ok(response) => counts.record_response(response.await).await,
            Err(_) => counts.record(Err(())),
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
                Ok(request) => counts.record_response(sender.send_request(request).await).await,
                Err(_) => counts.record(Err(())),
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
        // All requests share one body, so that the memory of the client is no limit.
        request.method(method).body(Full::new(body(self.body))).context("not a request")
    }
}

fn body(length: usize) -> Bytes {
    static BODY: [u8; 1 << 20] = [b'x'; 1 << 20];
    Bytes::from_static(&BODY[..length.min(BODY.len())])
}

impl Counts {
    async fn record_response(&self, response: Result<Response<Incoming>, hyper::Error>) {
        let Ok(response) = response else { return self.record(Err(())) };
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return self.record(Err(())) };
        if !matches!(parts.status, StatusCode::OK | StatusCode::TOO_MANY_REQUESTS) {
            let text = || format!("{} {}", parts.status, String::from_utf8_lossy(&body.to_bytes()));
            self.first_other.get_or_init(text);
        }
        self.record(Ok((parts.status, parts.headers.get(header::RETRY_AFTER))));
    }

    fn record(&self, how: Result<(StatusCode, Option<&HeaderValue>), ()>) {
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

/// Connects from one of several loopback addresses.
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
    fn every_result_is_counted_once() {
        let counts = Counts::default();
        counts.sent.store(6, Relaxed);
        let soon = HeaderValue::from_static("1");
        counts.record(Ok((StatusCode::OK, None)));
        counts.record(Ok((StatusCode::TOO_MANY_REQUESTS, Some(&soon))));
        counts.record(Ok((StatusCode::TOO_MANY_REQUESTS, None)));
        counts.record(Ok((StatusCode::BAD_GATEWAY, None)));
        counts.record(Err(()));
        let state = counts.state();
        assert_eq!((state.ok, state.too_many, state.too_many_without_retry_after), (1, 2, 1));
        assert_eq!((state.others, state.broken, state.waiting), (1, 1, 1));
    }

    #[test]
    fn hosts_are_used_round_robin() {
        let hosts = ["a", "b"].map(str::to_owned).to_vec();
        let target = "127.0.0.1:1".parse().unwrap();
        let crowd = Crowd { target, hosts, connections: 1, streams: 2, body: 3 };
        let request = crowd.request(3).unwrap();
        assert_eq!((request.uri().to_string(), request.method()), ("http://b/".to_owned(), &Method::POST));
        assert_eq!(body(16 << 10).len(), 16 << 10);
    }
}
