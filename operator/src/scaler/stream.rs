//! Reads the demand stream of one activator.
//!
//! What is read is handed on before more is read, so nothing is held here but one unfinished line and what the HTTP library
//! has read ahead; a writer that is faster than this reader is held back by its socket. A line has to be complete within
//! [`SILENCE`], however busily its bytes trickle, and lines come no faster than [`MOST_FRAMES`].

mod trust;

pub use trust::{Fault, Witness};

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
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

/// An activator that says nothing for so long is as good as gone: three heartbeats.
const SILENCE: Duration = Duration::from_secs(3 * HEARTBEAT.as_secs());

/// Frames that are read in a second; the others wait in the socket. An activator writes four, and one for each function that
/// is woken.
const MOST_FRAMES: u32 = 1000;

/// The time in which so many are read.
const FLOOD: Duration = Duration::from_secs(1);

/// What the HTTP library may read ahead, in bytes.
const READ_AHEAD: usize = 64 << 10;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(3);

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    /// The connection broke.
    #[error("the connection failed: {0}")]
    Http(#[from] hyper::Error),
    /// It does not serve the stream.
    #[error("answered with status {0}")]
    Status(StatusCode),
    /// It said nothing.
    #[error("nothing came within {0:?}")]
    Silence(Duration),
    /// A line is longer than any that an activator writes.
    #[error("a line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// Another process speaks than the one that began.
    #[error("another process speaks on the same connection")]
    Process,
    /// A line is not a frame.
    #[error("a line is no frame: {0}")]
    Garbage(#[from] serde_json::Error),
    /// A stream of another version.
    #[error("the stream has version {0}, and this program reads version {VERSION}")]
    Version(u32),
    /// It ended.
    #[error("the stream ended")]
    Ended,
}

/// Reads the stream of `source` over and over, for as long as it is polled, and hands each frame to `sink`, as far as it can
/// be believed. `connected` is told 1 and -1, `fault` what could not be.
pub async fn follow(source: Source, sink: impl Fn(Frame), connected: impl Fn(i64), fault: impl Fn(Fault)) {
    let mut failures = 0;
    loop {
        let mut frames = 0u64;
        let mut guard = Connected { tell: &connected, open: false };
        let mut told = false;
        let hear = |frame| {
            if frames == 0 {
                guard.open();
            }
            frames += 1;
            sink(frame);
        };
        let doubt = |what: Fault| {
            fault(what);
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(activator = %source.address, what = what.word(), "An activator says of demand what cannot be; that is not believed, and more of it on this connection is only counted");
            }
        };
        let Err(error) = read(&source, hear, doubt).await;
        drop(guard);
        // One that spoke was well until now.
        failures = if frames > 0 { 1 } else { failures + 1 };
        let wait = backoff::QUICK.after(failures);
        tracing::warn!(activator = %source.address, %error, failures, retry_in = ?wait, "A demand stream ended and is begun anew; what was last known stands");
        tokio::time::sleep(wait).await;
    }
}

/// Tells `connected` of the end, also when the task is dropped in the middle.
struct Connected<'a, F: Fn(i64)> {
    tell: &'a F,
    open: bool,
}

impl<F: Fn(i64)> Connected<'_, F> {
    fn open(&mut self) {
        self.open = true;
        (self.tell)(1);
    }
}

impl<F: Fn(i64)> Drop for Connected<'_, F> {
    fn drop(&mut self) {
        if self.open {
            (self.tell)(-1);
        }
    }
}

/// Reads one connection to its end, which is always an error.
async fn read(
    source: &Source,
    mut sink: impl FnMut(Frame),
    mut fault: impl FnMut(Fault),
) -> Result<std::convert::Infallible, Error> {
    let socket = timeout(CONNECT, TcpStream::connect(source.address)).await.map_err(|_| Error::Silence(CONNECT))??;
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(READ_AHEAD).handshake(TokioIo::new(socket)).await?;
    let talk = async {
        let request = Request::get("/v1/demand").header(HOST, source.address.to_string()).body(Empty::<Bytes>::new());
        // A constant path and an address are always a request.
        let Ok(request) = request else { return Err(Error::Ended) };
        let response = timeout(SILENCE, sender.send_request(request)).await.map_err(|_| Error::Silence(SILENCE))??;
        if response.status() != StatusCode::OK {
            return Err(Error::Status(response.status()));
        }
        let mut body = response.into_body();
        let (mut frames, mut witness) = (Frames::default(), Witness::default());
        let (mut heard, mut second, mut number) = (Instant::now(), Instant::now(), 0u32);
        loop {
            let chunk = timeout_at(heard + SILENCE, body.frame()).await.map_err(|_| Error::Silence(SILENCE))?;
            let Some(data) = chunk.ok_or(Error::Ended)??.into_data().ok() else { continue };
            let mut broken = false;
            frames.take(&data, |frame| {
                heard = Instant::now();
                number = number.saturating_add(1);
                let checked = witness.check(frame, |what| {
                    broken |= what == Fault::Process;
                    fault(what);
                });
                checked.into_iter().for_each(&mut sink);
            })?;
            if broken {
                return Err(Error::Process);
            }
            if number >= MOST_FRAMES {
                sleep_until(second + FLOOD).await;
                // The time in which nobody read is not the writer's.
                heard = Instant::now();
            }
            if second.elapsed() >= FLOOD {
                (second, number) = (Instant::now(), 0);
            }
        }
    };
    // The connection has to be polled for the talk to go on; it ends before the talk only by failing.
    let mut connection = std::pin::pin!(connection);
    let mut talk = std::pin::pin!(talk);
    tokio::select! {
        result = &mut talk => result,
        ended = &mut connection => {
            ended?;
            // What had come before the end is read still.
            talk.await
        }
    }
}

/// Bytes into frames.
///
/// Holds one unfinished line and nothing else, so never more than [`MAX_LINE`] bytes.
#[derive(Debug, Default)]
pub struct Frames {
    /// A line without its end so far.
    unfinished: Vec<u8>,
}

impl Frames {
    /// Takes the next bytes of a stream and hands every frame that ends in them to `sink`.
    ///
    /// # Errors
    ///
    /// If a line is too long, no frame, or of another version. Nothing more can be read from the stream then.
    pub fn take(&mut self, mut data: &[u8], mut sink: impl FnMut(Frame)) -> Result<(), Error> {
        while let Some(end) = data.iter().position(|b| *b == b'\n') {
            let (part, rest) = (&data[..end], &data[end + 1..]);
            data = rest;
            if self.unfinished.is_empty() {
                frame(part, &mut sink)?;
            } else {
                self.hold(part)?;
                frame(&std::mem::take(&mut self.unfinished), &mut sink)?;
            }
        }
        self.hold(data)
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.unfinished.len()
    }

    fn hold(&mut self, part: &[u8]) -> Result<(), Error> {
        if self.unfinished.len() + part.len() > MAX_LINE {
            return Err(Error::TooLong);
        }
        self.unfinished.extend_from_slice(part);
        Ok(())
    }
}

/// Reads one line without its end. An empty one says nothing.
fn frame(line: &[u8], sink: &mut impl FnMut(Frame)) -> Result<(), Error> {
    if line.len() > MAX_LINE {
        return Err(Error::TooLong);
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
