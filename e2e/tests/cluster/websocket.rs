//! WebSocket as RFC 6455 has it, frame by frame. The cases and their numbers are those of the Autobahn test suite (which runs
//! on Python 2 alone), the echo server is the one that a library is tested with there. What is tested is all between: every
//! byte arrives, in order and in time, and an end is an end on both sides.

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

use crate::{scene::Scene, way::Way};
use cases::{Case, End, cases};
use frames::{CLOSE, frame, read_message};

/// No case takes longer, cold or warm.
const LIMIT: Duration = Duration::from_secs(60);

/// The two sides of RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A connection after its handshake.
struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    /// Bytes that came and are not yet a frame.
    read: Vec<u8>,
}

impl Connection {
    /// Shakes hands; gives the head of the answer too.
    async fn open(way: &Way, host: &str) -> Result<(Self, String)> {
        let mut stream = TcpStream::connect(way.address).await?;
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
        ensure!(head.starts_with("http/1.1 101") && head.contains(&ACCEPT.to_lowercase()), "no handshake:\n{head}");
        read.drain(..end);
        let (reader, writer) = stream.into_split();
        Ok((Self { reader, writer, read }, head))
    }

    /// The next message or control frame: kind and payload. `None` if the connection has ended.
    async fn message(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        read_message(&mut self.reader, &mut self.read).await
    }

    /// Expects a close with one of these codes, and the end of the connection.
    async fn closes(&mut self, codes: &[Option<u16>], way: &Way) -> Result<()> {
        let Some((opcode, payload)) = self.message().await? else { bail!("the connection ended without a close") };
        ensure!(opcode == CLOSE, "not a close, but kind {opcode} with {} bytes", payload.len());
        let code = payload.get(..2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        ensure!(codes.contains(&code), "closed with {code:?} and not one of {codes:?}");
        // The answer to a close that the server began; one that answers ours does not ask for another.
        self.writer.write_all(&frame(true, 0, CLOSE, &payload)).await.ok();
        if way.name == "ingress" {
            // It is the server that ends the connection, and an activator passes that on at once. Envoy gives the client
            // another second before it does, unless the client does its part.
            self.writer.shutdown().await.ok();
        }
        ensure!(self.message().await?.is_none(), "a frame after the close");
        Ok(())
    }
}

async fn run(case: &Case, way: &Way, host: &str) -> Result<()> {
    let (mut connection, _) = Connection::open(way, host).await?;
    let Connection { reader, writer, read } = &mut connection;
    // Sending goes on while answers are read, or a large message would wait for room in buffers on both sides.
    let send = async {
        for piece in &case.pieces {
            if writer.write_all(piece).await.is_err() {
                // The other side has failed the connection already; what it said tells.
                break;
            }
        }
    };
    let receive = async {
        for (n, expected) in case.answers.iter().enumerate() {
            let answer = read_message(reader, read).await?;
            let answer = answer.with_context(|| format!("the connection ended before answer {n}"))?;
            ensure!(answer == *expected, "answer {n} is of kind {} and has {} bytes", answer.0, answer.1.len());
        }
        Ok(())
    };
    tokio::join!(send, receive).1?;
    match &case.end {
        End::Ours => {
            connection.writer.write_all(&frame(true, 0, CLOSE, &1000u16.to_be_bytes())).await?;
            connection.closes(&[Some(1000)], way).await
        }
        End::Theirs(codes) => connection.closes(codes, way).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_conformance_through_the_ingress_and_directly() -> Result<()> {
    let scene = Scene::new("websocket").await?;
    let image = scene.cluster.images.get("rouse-suites").context("the cluster has no image of the suites")?;
    let spec = json!({"image": image, "command": ["/websocket-server", "-addr=:8080"], "scaling": {"initial": 0}});
    let mut failed = vec![];
    for way in &scene.ways().await? {
        let name = format!("websocket-{}", way.name);
        scene.ready(&name, spec.clone()).await?;
        let host = scene.host(&name);
        let (_, head) = timeout(LIMIT, Connection::open(way, &host)).await??;
        ensure!(head.contains("rouse-cold-start: true"), "the first connection was not a cold one:\n{head}");
        for case in cases() {
            let ran = timeout(LIMIT, run(&case, way, &host)).await.unwrap_or_else(|_| bail!("no end"));
            if let Err(error) = ran {
                failed.push(format!("{} by {}: {error:#}", case.name, way.name));
            }
        }
    }
    ensure!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
    scene.done().await
}
