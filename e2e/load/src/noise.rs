//! Noisy tenants: many connections that cost memory and do little, and the function that they use.
//!
//! A connection that the server closes, or cannot accept, is opened again: a noisy tenant does not give up.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::Serialize;
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{sleep, timeout},
};

/// Connections from one loopback address, which has a limited number of ports.
const PER_SOURCE: usize = 5000;
/// Delay between two connections of this process, so that they arrive over some seconds.
const PACE: Duration = Duration::from_micros(200);
const RECONNECT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Receive buffer of a slow reader: what it does not read stays with the server.
const SMALL_BUFFER: u32 = 4 << 10;
/// Length of a large response.
const LARGE: usize = 64 << 20;
/// Length of an upload.
const UPLOAD: usize = 1 << 30;
const PIECE: usize = 64 << 10;
/// One byte is read, or sent, per this time.
const SLOW: Duration = Duration::from_secs(1);

/// What the connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// One request, and then nothing; every other connection sends none.
    Idle,
    /// Reads a large response one byte at a time.
    Reader,
    /// Sends a body one byte at a time; every other one as fast as it is taken, to a function that does not read it.
    Upload,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Noise {
    /// Address of the server.
    #[arg(long)]
    target: SocketAddr,
    /// Host of the requests.
    #[arg(long)]
    host: String,
    /// What the connections do.
    #[arg(long, value_enum)]
    role: Role,
    /// Number of connections.
    #[arg(long)]
    connections: usize,
    /// Last part of the first loopback address to connect from, so that processes use different ones.
    #[arg(long, default_value_t = 100)]
    source: u8,
}

/// State of the connections.
#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    opened: AtomicUsize,
    closed: AtomicUsize,
    unconnected: AtomicUsize,
    refused: AtomicUsize,
}

#[derive(Debug, Serialize)]
struct State {
    /// Open now.
    open: usize,
    /// Opened so far.
    opened: usize,
    /// Closed by the server.
    closed: usize,
    /// Connections that failed or timed out.
    unconnected: usize,
    /// Responses with 503.
    refused: usize,
}

/// Opens the connections, and prints their state for each line on stdin until it is closed.
///
/// # Errors
///
/// If the runtime fails. Failed connections are counted.
pub(crate) fn run(noise: Noise) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (counts, noise) = (Arc::new(Counts::default()), Arc::new(noise));
        let opening = tokio::spawn({
            let counts = counts.clone();
            async move {
                for number in 0..noise.connections {
                    tokio::spawn(forever(number, noise.clone(), counts.clone()));
                    sleep(PACE).await;
                }
            }
        });
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while lines.next_line().await?.is_some() {
            let of = |count: &AtomicUsize| count.load(Relaxed);
            let state = State {
                open: of(&counts.open),
                opened: of(&counts.opened),
                closed: of(&counts.closed),
                unconnected: of(&counts.unconnected),
                refused: of(&counts.refused),
            };
            println!("{}", serde_json::to_string(&state)?);
        }
        opening.abort();
        Ok(())
    })
}

async fn forever(number: usize, noise: Arc<Noise>, counts: Arc<Counts>) {
    loop {
        match timeout(CONNECT_TIMEOUT, connect(&noise, number)).await {
            Ok(Ok(stream)) => {
                counts.opened.fetch_add(1, Relaxed);
                counts.open.fetch_add(1, Relaxed);
                // However it ends, the server has closed it.
                drop(one(stream, number, &noise, &counts).await);
                counts.open.fetch_sub(1, Relaxed);
                counts.closed.fetch_add(1, Relaxed);
            }
            Ok(Err(_)) | Err(_) => {
                counts.unconnected.fetch_add(1, Relaxed);
            }
        }
        sleep(RECONNECT).await;
    }
}

async fn connect(noise: &Noise, number: usize) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(noise.target), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let last = noise.source + u8::try_from(number / PER_SOURCE).context("too many connections")?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)).into())?;
    let socket = TcpSocket::from_std_stream(socket.into());
    if noise.role == Role::Reader {
        socket.set_recv_buffer_size(SMALL_BUFFER)?;
    }
    Ok(socket.connect(noise.target).await?)
}

/// Uses one connection until the server closes it.
async fn one(mut stream: TcpStream, number: usize, noise: &Noise, counts: &Counts) -> Result<()> {
    let host = &noise.host;
    match noise.role {
        Role::Idle if number % 2 == 1 => {}
        Role::Idle => stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?,
        Role::Reader => stream.write_all(format!("GET /large HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await?,
        Role::Upload => {
            let path = if number % 2 == 1 { "/stall" } else { "/" };
            let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {UPLOAD}\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
        }
    }
    let (mut reader, mut writer) = stream.split();
    let sending = async {
        if noise.role != Role::Upload {
            std::future::pending::<()>().await;
        }
        let piece = vec![b'x'; if number % 2 == 1 { PIECE } else { 1 }];
        loop {
            writer.write_all(&piece).await?;
            if piece.len() == 1 {
                sleep(SLOW).await;
            }
        }
        #[allow(unreachable_code, reason = "gives the block its type")]
        std::io::Result::Ok(())
    };
    let receiving = async {
        let mut buffer = vec![0; if noise.role == Role::Reader { 1 } else { 1024 }];
        let mut start = Vec::with_capacity(16);
        loop {
            let count = reader.read(&mut buffer).await?;
            if start.len() < 12 {
                start.extend_from_slice(&buffer[..count.min(12)]);
                if start.starts_with(b"HTTP/1.1 503") {
                    counts.refused.fetch_add(1, Relaxed);
                }
            }
            if count == 0 {
                return std::io::Result::Ok(());
            }
            if noise.role == Role::Reader {
                sleep(SLOW).await;
            }
        }
    };
    tokio::select! {
        ended = sending => ended?,
        ended = receiving => ended?,
    }
    Ok(())
}

/// Serves the function of the noisy tenants: `GET /large` sends 64 MiB, `POST /stall` does not read the body, and every other
/// request gets a short response after its body. Prints its address, and runs until it is killed.
///
/// # Errors
///
/// If the address cannot be bound.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        println!("{}", listener.local_addr()?);
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                // However it ends, there is nobody to tell.
                tokio::spawn(async move { drop(respond(stream).await) });
            } else {
                sleep(SLOW).await;
            }
        }
    })
}

/// Serves the requests of one connection.
async fn respond(stream: TcpStream) -> Result<()> {
    let mut stream = BufReader::with_capacity(4 << 10, stream);
    loop {
        let (mut first, mut body) = (String::new(), 0_u64);
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? <= 2 {
                break;
            }
            if let Some((name, value)) =
                line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            {
                body = value.trim().parse().with_context(|| format!("{name} is not a number"))?;
            }
        }
        if first.starts_with("POST /stall ") {
            std::future::pending::<()>().await;
        }
        tokio::io::copy(&mut (&mut stream).take(body), &mut tokio::io::sink()).await?;
        let length = if first.starts_with("GET /large ") { LARGE } else { 2 };
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await?;
        let piece = vec![b'x'; length.min(PIECE)];
        let mut left = length;
        while left > 0 {
            let count = left.min(piece.len());
            stream.write_all(&piece[..count]).await?;
            left -= count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_function_responds_as_it_is_asked() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(respond(stream));
            }
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /large HTTP/1.1\r\n\r\n").await.unwrap();
        let mut text = vec![0; 38 + 2 + 44];
        stream.read_exact(&mut text[..]).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nxxHTTP/1.1 200 OK"), "{text}");
        assert!(text.contains("Content-Length: 67108864"), "{text}");
    }
}
