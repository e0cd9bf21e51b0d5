//! Reads the demand stream of one activator.
//!
//! A frame is handed on before more is read, so the buffers hold one unfinished line and what the HTTP library has read
//! ahead; TCP flow control slows down a writer that is faster than the reader. A line has to be complete within
//! [`READ_TIMEOUT`], even if single bytes keep arriving, and the reader takes at most [`MAX_FRAMES`] per [`RATE_WINDOW`].

mod validate;

pub use validate::{Fault, Validator};

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    Request, StatusCode,
    header::{AUTHORIZATION, HOST},
};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rouse_crds::demand::{Frame, HEARTBEAT, MAX_LINE, VERSION};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::aggregate::Source;
use crate::runtime::backoff;

/// Longest time without a frame, after which the connection is closed: three heartbeats.
const READ_TIMEOUT: Duration = Duration::from_secs(3 * HEARTBEAT.as_secs());

/// Frames that are read per [`RATE_WINDOW`]; further ones stay in the socket. An activator writes four per second, and one
/// for each wake.
const MAX_FRAMES: u32 = 1000;

/// Period of the frame limit.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// Read buffer of the HTTP library, in bytes.
const READ_AHEAD: usize = 64 << 10;

/// Timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// File of the token that an activator requires of a reader; `None` for activators that require none.
///
/// The kubelet replaces the token long before it expires, so it is read for each connection.
pub type TokenFile = Option<Arc<Path>>;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token could not be read.
    #[error("failed to read the token for the activators: {0}")]
    Token(io::Error),
    /// The connection attempt failed.
    #[error("connection failed: {0}")]
    Connect(#[from] io::Error),
    /// The connection failed.
    #[error("HTTP error: {0}")]
    Http(#[from] hyper::Error),
    /// The response is not a stream.
    #[error("unexpected status {0}")]
    Status(StatusCode),
    /// No connection, response or frame arrived in time.
    #[error("timed out after {0:?}")]
    Timeout(Duration),
    /// A line is longer than any that an activator writes.
    #[error("a line exceeds {MAX_LINE} bytes")]
    LineTooLong,
    /// The identity of the process changed.
    #[error("the process changed on one connection")]
    ProcessChanged,
    /// A line is not a frame.
    #[error("invalid frame: {0}")]
    InvalidFrame(#[from] serde_json::Error),
    /// The stream has another version.
    #[error("unsupported stream version {0}; supported: {VERSION}")]
    Version(u32),
    /// The activator closed the stream.
    #[error("the stream ended")]
    Ended,
}

/// Reads the stream of `source`, and reconnects with backoff, until it is dropped. Passes each valid frame to `sink`, 1 and
/// -1 to `connected` for each connection, and what is invalid to `fault`.
pub async fn follow(
    source: Source,
    token: TokenFile,
    sink: impl Fn(Frame),
    connected: impl Fn(i64),
    fault: impl Fn(Fault),
) {
    let mut failures = 0;
    loop {
        let mut frames = 0u64;
        let mut gauge = ConnectionGauge { change: &connected, open: false };
        let mut logged = false;
        let on_frame = |frame| {
            if frames == 0 {
                gauge.open();
            }
            frames += 1;
            sink(frame);
        };
        let on_fault = |what: Fault| {
            fault(what);
            if !std::mem::replace(&mut logged, true) {
                tracing::warn!(activator = %source.address, reason = what.label(), "Rejected invalid demand frame; further ones on this connection are only counted");
            }
        };
        let Err(error) = read(&source, token.as_deref(), on_frame, on_fault).await;
        drop(gauge);
        // A connection that delivered frames resets the backoff.
        failures = if frames > 0 { 1 } else { failures + 1 };
        let wait = backoff::QUICK.after(failures);
        tracing::warn!(activator = %source.address, %error, failures, retry_in = ?wait, "Demand stream ended; will reconnect, the last known demand is kept");
        tokio::time::sleep(wait).await;
    }
}

/// Counts one open connection, also if the task is cancelled.
struct ConnectionGauge<'a, F: Fn(i64)> {
    change: &'a F,
    open: bool,
}

impl<F: Fn(i64)> ConnectionGauge<'_, F> {
    fn open(&mut self) {
        self.open = true;
        (self.change)(1);
    }
}

impl<F: Fn(i64)> Drop for ConnectionGauge<'_, F> {
    fn drop(&mut self) {
        if self.open {
            (self.change)(-1);
        }
    }
}

/// Reads one connection until it ends, which is always an error.
async fn read(
    source: &Source,
    token: Option<&Path>,
    mut sink: impl FnMut(Frame),
    mut fault: impl FnMut(Fault),
) -> Result<std::convert::Infallible, Error> {
    let mut request = Request::get("/v1/demand").header(HOST, source.address.to_string());
    if let Some(file) = token {
        let token = tokio::fs::read_to_string(file).await.map_err(Error::Token)?;
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    // Fails only if the token is not text that a header can have.
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| Error::Token(io::Error::other(error)))?;
    let socket = timeout(CONNECT_TIMEOUT, TcpStream::connect(source.address))
        .await
        .map_err(|_| Error::Timeout(CONNECT_TIMEOUT))??;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(READ_AHEAD).handshake(TokioIo::new(socket)).await?;
    let exchange = async {
        let response =
            timeout(READ_TIMEOUT, sender.send_request(request)).await.map_err(|_| Error::Timeout(READ_TIMEOUT))??;
        if response.status() != StatusCode::OK {
            return Err(Error::Status(response.status()));
        }
        let mut body = response.into_body();
        let (mut reader, mut validator) = (FrameReader::default(), Validator::default());
        let (mut last_frame, mut window, mut count) = (Instant::now(), Instant::now(), 0u32);
        loop {
            let chunk =
                timeout_at(last_frame + READ_TIMEOUT, body.frame()).await.map_err(|_| Error::Timeout(READ_TIMEOUT))?;
            let Some(data) = chunk.ok_or(Error::Ended)??.into_data().ok() else { continue };
            let mut process_changed = false;
            reader.read(&data, |frame| {
                last_frame = Instant::now();
                count = count.saturating_add(1);
                let valid = validator.validate(frame, |what| {
                    process_changed |= what == Fault::Process;
                    fault(what);
                });
                valid.into_iter().for_each(&mut sink);
            })?;
            if process_changed {
                return Err(Error::ProcessChanged);
            }
            if count >= MAX_FRAMES {
                sleep_until(window + RATE_WINDOW).await;
                // The pause of the reader does not count towards the timeout.
                last_frame = Instant::now();
            }
            if window.elapsed() >= RATE_WINDOW {
                (window, count) = (Instant::now(), 0);
            }
        }
    };
    // The connection has to be polled for the exchange to progress.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        closed = &mut connection => {
            closed?;
            // Reads what arrived before the close.
            exchange.await
        }
    }
}

/// Splits a stream of bytes into frames.
///
/// Buffers one unfinished line, which is at most [`MAX_LINE`] bytes.
#[derive(Debug, Default)]
pub struct FrameReader {
    unfinished: Vec<u8>,
}

impl FrameReader {
    /// Reads the next bytes of a stream and passes every completed frame to `sink`.
    ///
    /// # Errors
    ///
    /// If a line is too long, is not a frame, or has another version. The stream cannot be read further then.
    pub fn read(&mut self, mut data: &[u8], mut sink: impl FnMut(Frame)) -> Result<(), Error> {
        while let Some(end) = data.iter().position(|b| *b == b'\n') {
            let (line, rest) = (&data[..end], &data[end + 1..]);
            data = rest;
            if self.unfinished.is_empty() {
                parse(line, &mut sink)?;
            } else {
                self.buffer(line)?;
                parse(&std::mem::take(&mut self.unfinished), &mut sink)?;
            }
        }
        self.buffer(data)
    }

    /// Returns the number of buffered bytes.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.unfinished.len()
    }

    fn buffer(&mut self, data: &[u8]) -> Result<(), Error> {
        if self.unfinished.len() + data.len() > MAX_LINE {
            return Err(Error::LineTooLong);
        }
        self.unfinished.extend_from_slice(data);
        Ok(())
    }
}

/// Parses one line without its line feed. Skips a blank line.
fn parse(line: &[u8], sink: &mut impl FnMut(Frame)) -> Result<(), Error> {
    if line.len() > MAX_LINE {
        return Err(Error::LineTooLong);
    }
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let frame: Frame = serde_json::from_slice(line)?;
    if frame.version != VERSION {
        return Err(Error::Version(frame.version));
    }
    sink(frame);
    Ok(())
}

#[cfg(test)]
mod tests;
