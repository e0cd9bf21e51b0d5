//! An upload by either version of HTTP, and a server that reads it to its end before it responds.

use std::{net::SocketAddr, time::Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::message::Head;

const READ: usize = 64 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    Http1,
    Http2,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct UploadPlan {
    /// Address of the server.
    #[arg(long)]
    target: SocketAddr,
    /// Host of the request.
    #[arg(long)]
    host: String,
    /// Size of the body, in bytes.
    #[arg(long)]
    bytes: usize,
    /// Version of HTTP.
    #[arg(long)]
    version: Version,
}

/// Result of an upload.
#[derive(Debug, Serialize)]
struct Done {
    seconds: f64,
    /// Megabytes (10⁶ bytes) per second.
    mb_s: f64,
}

/// Uploads once on a new connection, and prints the time from the request to its response as JSON.
///
/// # Errors
///
/// If the upload fails.
pub(crate) fn run(upload: &UploadPlan) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(send(upload))?;
    println!("{}", serde_json::to_string(&done)?);
    Ok(())
}

async fn send(upload: &UploadPlan) -> Result<Done> {
    let stream = TcpStream::connect(upload.target).await.context("cannot connect")?;
    stream.set_nodelay(true)?;
    let io = TokioIo::new(stream);
    let body = Full::new(Bytes::from(vec![b'x'; upload.bytes]));
    let (response, begun) = match upload.version {
        Version::Http1 => {
            let (mut sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            let request = Request::post("/").header(header::HOST, &upload.host).body(body)?;
            let begun = Instant::now();
            (sender.send_request(request).await?, begun)
        }
        Version::Http2 => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            let request = Request::post(format!("http://{}/", upload.host)).body(body)?;
            let begun = Instant::now();
            (sender.send_request(request).await?, begun)
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let status = response.status();
    let text = response.into_body().collect().await?.to_bytes();
    ensure!(status == StatusCode::OK, "{status}: {}", String::from_utf8_lossy(&text));
    ensure!(text == upload.bytes.to_string(), "the server read {text:?} bytes");
    Ok(Done { seconds, mb_s: upload.bytes as f64 / seconds / 1e6 })
}

/// Serves until the process is killed: reads each request to its end, and responds with the length of its body. Prints the
/// address.
///
/// # Errors
///
/// If no address can be bound.
pub(crate) fn sink() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(async move {
                if let Err(error) = read_requests(stream).await {
                    eprintln!("{error:#}");
                }
            });
        }
    })
}

async fn read_requests(mut stream: TcpStream) -> Result<()> {
    let mut received = vec![];
    loop {
        let head = loop {
            if let Some(head) = Head::read(&received)? {
                break head;
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        received.drain(..head.length);
        let mut left = head.body.saturating_sub(received.len());
        received.drain(..head.body.min(received.len()));
        let mut buffer = vec![0; READ];
        while left > 0 {
            let most = left.min(READ);
            let count = stream.read(&mut buffer[..most]).await?;
            ensure!(count > 0, "{left} bytes of the body are missing");
            left -= count;
        }
        let length = head.body.to_string();
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{length}", length.len());
        stream.write_all(response.as_bytes()).await?;
    }
}
