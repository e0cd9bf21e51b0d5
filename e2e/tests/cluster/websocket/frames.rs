//! Encoding and decoding of RFC 6455 frames.

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Opcodes.
pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const BINARY: u8 = 2;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// A frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    fin: bool,
    opcode: u8,
    payload: Vec<u8>,
}

/// Encodes a client's frame. `rsv` are the three reserved bits as a number.
pub(super) fn frame(fin: bool, rsv: u8, opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![u8::from(fin) << 7 | rsv << 4 | opcode];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        middle @ 126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().enumerate().map(|(n, byte)| byte ^ MASK[n % 4]));
    bytes
}

impl Frame {
    /// Decodes the frame at the start of the bytes; `None` if it is incomplete. Returns its length too.
    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let [first, second, rest @ ..] = bytes else { return None };
        let (length, extended) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?)), 2),
            127 => (usize::try_from(u64::from_be_bytes(rest.get(..8)?.try_into().ok()?)).ok()?, 8),
            short => (usize::from(short), 0),
        };
        let payload = rest.get(extended..extended + length)?.to_vec();
        Some((Self { fin: first & 0x80 != 0, opcode: first & 0x0f, payload }, 2 + extended + length))
    }
}

/// Reads the next frame; `None` if the connection was closed. `read` buffers incomplete frames.
async fn read_frame(from: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> Result<Option<Frame>> {
    loop {
        if let Some((frame, length)) = Frame::parse(read) {
            read.drain(..length);
            return Ok(Some(frame));
        }
        match from.read_buf(read).await {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            // Allowed for a side that fails the connection while bytes are in transit.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads the next message or control frame: opcode and payload.
pub(super) async fn read_message(
    from: &mut (impl AsyncRead + Unpin),
    read: &mut Vec<u8>,
) -> Result<Option<(u8, Vec<u8>)>> {
    let Some(mut message) = read_frame(from, read).await? else { return Ok(None) };
    while !message.fin {
        let more = read_frame(from, read).await?.context("the connection ended within a message")?;
        ensure!(more.opcode == CONTINUATION, "a frame of kind {} within a message", more.opcode);
        message.fin = more.fin;
        message.payload.extend(more.payload);
    }
    Ok(Some((message.opcode, message.payload)))
}
