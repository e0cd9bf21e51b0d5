//! WebSocket conformance (RFC 6455), frame by frame. The cases and their numbers are those of the Autobahn test suite, which
//! needs Python 2. The server echoes messages, so the test covers the path in between: every byte arrives in order and in
//! time, and a close on one side closes the other.

mod cases;
mod frames;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::{entry_point::EntryPoint, test_env::TestEnv};
use cases::{Case, End, cases};
use frames::{CLOSE, frame, read_message};

/// Timeout of a case.
const LIMIT: Duration = Duration::from_secs(60);

/// Example key and accept value of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A connection after its handshake.
struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    /// Received bytes without a complete frame.
    read: Vec<u8>,
}

impl Connection {
    /// Opens a connection. Returns the response headers of the handshake too.
    async fn open(entry: &EntryPoint, host: &str) -> Result<(Self, String)> {
        let mut stream = TcpStream::connect(entry.address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /m HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut read = vec![];
        let end = loop {
            ensure!(stream.read_buf(&mut read).await? > 0, "closed after {}", String::from_utf8_lossy(&read));
            if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
        ensure!(head.starts_with("http/1.1 101") && head.contains(&ACCEPT.to_lowercase()), "handshake failed:\n{head}");
        read.drain(..end);
        let (reader, writer) = stream.into_split();
        Ok((Self { reader, writer, read }, head))
    }

    /// Reads the next message or control frame: opcode and payload. `None` if the connection was closed.
    async fn message(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        read_message(&mut self.reader, &mut self.read).await
    }

    /// Expects a close with one of these codes, and the end of the connection.
    async fn closes(&mut self, codes: &[Option<u16>], entry: &EntryPoint) -> Result<()> {
        let Some((opcode, payload)) = self.message().await? else { bail!("the connection ended without a close") };
        ensure!(opcode == CLOSE, "not a close, but kind {opcode} with {} bytes", payload.len());
        let code = payload.get(..2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        ensure!(codes.contains(&code), "closed with {code:?} and not one of {codes:?}");
        // Replies to a close frame of the server. A reply to our own needs no further one.
        self.writer.write_all(&frame(true, 0, CLOSE, &payload)).await.ok();
        if entry.name == "ingress" {
            // The server closes the connection, and an activator forwards that immediately. Envoy waits another second
            // unless the client closes its side.
            self.writer.shutdown().await.ok();
        }
        ensure!(self.message().await?.is_none(), "a frame after the close");
        Ok(())
    }
}

async fn run(case: &Case, entry: &EntryPoint, host: &str) -> Result<()> {
    let (mut connection, _) = Connection::open(entry, host).await?;
    let Connection { reader, writer, read } = &mut connection;
    // Sends and receives concurrently: a large message would block on full buffers on both sides.
    let send = async {
        for piece in &case.pieces {
            if writer.write_all(piece).await.is_err() {
                // The server has already failed the connection; its close frame is checked below.
                break;
            }
        }
    };
    let receive = async {
        for (n, expected) in case.replies.iter().enumerate() {
            let reply = read_message(reader, read).await?;
            let reply = reply.with_context(|| format!("the connection ended before reply {n}"))?;
            ensure!(reply == *expected, "reply {n} is of kind {} and has {} bytes", reply.0, reply.1.len());
        }
        Ok(())
    };
    tokio::join!(send, receive).1?;
    match &case.end {
        End::ByClient => {
            connection.writer.write_all(&frame(true, 0, CLOSE, &1000u16.to_be_bytes())).await?;
            connection.closes(&[Some(1000)], entry).await
        }
        End::ByServer(codes) => connection.closes(codes, entry).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_conformance_through_the_ingress_and_directly() -> Result<()> {
    let env = TestEnv::new("websocket").await?;
    let image = env.cluster.images.get("rouse-suites").context("the cluster has no image of the suites")?;
    let spec = json!({"image": image, "command": ["/websocket-server", "-addr=:8080"], "scaling": {"initial": 0}});
    let mut failed = vec![];
    for entry in &env.entry_points().await? {
        let name = format!("websocket-{}", entry.name);
        env.ready(&name, spec.clone()).await?;
        let host = env.host(&name);
        let (_, head) = timeout(LIMIT, Connection::open(entry, &host)).await??;
        ensure!(head.contains("rouse-cold-start: true"), "the first connection had no cold start:\n{head}");
        for case in cases() {
            let ran = timeout(LIMIT, run(&case, entry, &host)).await.unwrap_or_else(|_| bail!("timed out"));
            if let Err(error) = ran {
                failed.push(format!("{} by {}: {error:#}", case.name, entry.name));
            }
        }
    }
    ensure!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
    env.finish().await
}
