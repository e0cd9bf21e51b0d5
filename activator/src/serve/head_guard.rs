//! Head guard: validates the heads of HTTP/1 requests before the HTTP library reads them.
//!
//! The library is lenient in places (a line that ends in a bare line feed), silent in others (it drops Content-Length
//! where there is Transfer-Encoding), and has one limit for the size of a head and the size of its buffer. The guard
//! follows a connection from message to message. It passes a head once it is complete and valid, and returns how many
//! bytes the library may read. So the library never reads what two servers may read in different ways.

use super::{
    head_parser::{HeadParser, Lines, Parsed},
    limits::Limits,
};
use crate::downstream::{self, ConnectionState, Fault, READ_AHEAD};

/// Follows the bytes of one connection from message to message.
#[derive(Debug)]
pub struct HeadGuard {
    limits: Limits,
    state: State,
    /// The current message asks for a protocol upgrade.
    upgrade: bool,
    /// The rejection depends on the method and version.
    is_head: bool,
    is_http_10: bool,
}

#[derive(Debug)]
enum State {
    Head(HeadParser),
    Fixed(u64),
    ChunkSize(Lines),
    Chunk(u64),
    ChunkEnd,
    Trailers(HeadParser),
    /// After a request that asked for an upgrade; what follows depends on its response.
    Undecided,
    /// HTTP/2 or a tunnel.
    Off,
    Rejected,
}

/// Result of inspecting bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Number of bytes, from the first on, that are for the library. The others have to be kept, and inspected again
    /// with more bytes after them.
    pub pass: usize,
    /// The rest is dropped.
    pub rejected: Option<Rejected>,
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// In a head: the library has not seen the request.
    Head(Fault),
    /// In a body: the request may be in a pod already.
    Body(Fault),
}

/// Maximum length of a chunk size line with its extensions.
const LONGEST_CHUNK_LINE: usize = 4 << 10;

impl HeadGuard {
    /// Creates a guard for a new connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let state = State::Head(HeadParser::default());
        Self { limits, state, upgrade: false, is_head: false, is_http_10: false }
    }

    /// Inspects bytes: those that were kept, and new ones after them.
    pub fn read(&mut self, bytes: &[u8], shared: &ConnectionState) -> Inspected {
        let mut pass = 0;
        while pass < bytes.len() {
            match self.step(&bytes[pass..], shared) {
                Ok(0) => break,
                Ok(read) => pass += read,
                Err(rejected) => {
                    let (Rejected::Head(fault) | Rejected::Body(fault)) = rejected;
                    shared.set_fault(fault);
                    self.state = State::Rejected;
                    return Inspected { pass, rejected: Some(rejected) };
                }
            }
        }
        Inspected { pass, rejected: None }
    }

    /// Inspects bytes in one state. Returns how many it consumed; zero if more are needed.
    fn step(&mut self, bytes: &[u8], shared: &ConnectionState) -> Result<usize, Rejected> {
        match &mut self.state {
            State::Off => Ok(bytes.len()),
            State::Undecided | State::Rejected => Ok(0),
            State::Head(head) => {
                let read = head.read(bytes, &self.limits);
                (self.is_head, self.is_http_10) = (head.is_head, head.is_http_10);
                match read.map_err(Rejected::Head)? {
                    Parsed::Incomplete => Ok(0),
                    Parsed::Http2Preface => {
                        shared.set_http2();
                        self.state = State::Off;
                        Ok(bytes.len())
                    }
                    Parsed::Complete(read) => {
                        shared.set_http_10(head.is_http_10);
                        self.upgrade = head.upgrade && !head.is_http_10;
                        self.state = match head.length() {
                            _ if head.chunked => State::ChunkSize(Lines::default()),
                            Some(length @ 1..) => State::Fixed(length),
                            _ => self.after_message(),
                        };
                        Ok(read)
                    }
                }
            }
            State::Fixed(left) | State::Chunk(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    let chunk = matches!(self.state, State::Chunk(_));
                    self.state = if chunk { State::ChunkEnd } else { self.after_message() };
                }
                Ok(taken)
            }
            State::ChunkSize(lines) => {
                let line = lines.next(bytes).map_err(Rejected::Body)?;
                if line.map_or(bytes.len(), <[u8]>::len) > LONGEST_CHUNK_LINE {
                    return Err(Rejected::Body(Fault::TooLarge("a chunk size line is too long")));
                }
                let Some(line) = line else { return Ok(0) };
                let (read, size) = (lines.read(), chunk_size(line).map_err(Rejected::Body)?);
                self.state = if size == 0 { State::Trailers(HeadParser::default()) } else { State::Chunk(size) };
                Ok(read)
            }
            State::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkSize(Lines::default());
                    Ok(2)
                }
                [b'\r'] => Ok(0),
                _ => Err(Rejected::Body(Fault::Malformed("a chunk does not have its declared size"))),
            },
            State::Trailers(trailers) => match trailers.read_trailers(bytes, &self.limits).map_err(Rejected::Body)? {
                Parsed::Complete(read) => {
                    self.state = self.after_message();
                    Ok(read)
                }
                Parsed::Incomplete | Parsed::Http2Preface => Ok(0),
            },
        }
    }

    /// Returns the state after the end of a message.
    fn after_message(&self) -> State {
        if self.upgrade { State::Undecided } else { State::Head(HeadParser::default()) }
    }

    /// Handles a read after the end of a message, which the library does once it has responded: `tunnel` is whether the
    /// protocol was switched.
    pub(crate) fn finish_upgrade(&mut self, tunnel: bool) {
        if matches!(self.state, State::Undecided) {
            self.state = if tunnel { State::Off } else { State::Head(HeadParser::default()) };
        }
    }

    /// Maximum size of the next read in bytes. A read must not take more than [`READ_AHEAD`] bytes of a request that
    /// may have to be queued. Its body stays in the socket then, and memory is counted for no more than that.
    pub(super) fn read_limit(&self) -> usize {
        match self.state {
            State::Off => usize::MAX,
            State::Fixed(left) | State::Chunk(left) => {
                usize::try_from(left).unwrap_or(usize::MAX).saturating_add(READ_AHEAD)
            }
            _ => READ_AHEAD,
        }
    }

    /// Whether the next byte belongs to a head.
    pub(super) fn in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Whether a head has begun, of which these bytes are kept: empty lines before it do not count.
    pub(super) fn begun(&self, kept: &[u8]) -> bool {
        matches!(&self.state, State::Head(head) if head.begun(kept))
    }

    /// Whether the rest of a request may still arrive. The connection then lingers before it is closed, or the client
    /// may not receive the response.
    pub(super) fn in_body(&self) -> bool {
        !matches!(self.state, State::Head(_) | State::Undecided | State::Off)
    }

    /// Rejects a head that is not complete in time.
    pub(super) fn too_slow(&mut self, shared: &ConnectionState) {
        shared.set_fault(Fault::Slow);
        self.state = State::Rejected;
    }

    /// Returns the placeholder for the rejected request.
    pub(crate) fn placeholder(&self) -> &'static [u8] {
        downstream::placeholder(self.is_head, self.is_http_10)
    }
}

/// Parses a chunk size line.
fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let digits = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(digits);
    let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    // White space before extensions, or in their place, is an old habit and does no harm.
    let extended = matches!(rest.trim_ascii_start(), [] | [b';', ..]);
    // Extensions are dropped; they must not contain what could end the line for a lenient reader.
    let clean = rest.iter().all(|b| *b >= b' ' && *b != 0x7f || *b == b'\t');
    size.filter(|_| extended && clean).ok_or(Fault::Malformed("a chunk size is malformed"))
}

#[cfg(test)]
mod tests;
