//! A guard that reads the heads of requests before the HTTP library does.
//!
//! The library is lenient in places (a line that ends in a bare line feed), silent in others (it drops Content-Length where
//! there is Transfer-Encoding), and has one limit for the size of a head and the size of its buffer. The guard follows a
//! connection from message to message, lets a head through when the whole of it has come and is one that HTTP allows, and
//! says where the bytes end that the library may see. What two servers may read in two ways is thereby never read at all.

use super::{
    head::{Head, Lines, Read},
    limits::Limits,
};
use crate::downstream::{self, Fault, HeadVerdict};

/// Follows the bytes of one connection from message to message.
#[derive(Debug)]
pub struct HeadReader {
    limits: Limits,
    state: State,
    /// The message that is being read asks for another protocol after it.
    upgrade: bool,
    /// What the refusal of this head has to look like.
    is_head: bool,
    is_http_10: bool,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Fixed(u64),
    ChunkSize(Lines),
    Chunk(u64),
    ChunkEnd,
    Trailers(Head),
    /// A request is over that asked for another protocol; what comes next depends on its answer.
    Undecided,
    /// HTTP/2 or a tunnel.
    Off,
    Refused,
}

/// What may be done with bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// So many of them, from the first on, are for the library. The others are to be kept, and to be shown again with more
    /// behind them.
    pub pass: usize,
    /// The rest is not for anybody.
    pub refused: Option<Refused>,
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A head: its request has not begun for the library.
    Head(Fault),
    /// A body: its request may be in a pod already.
    Body(Fault),
}

/// A chunk's size with its extensions.
const LONGEST_CHUNK_LINE: usize = 4 << 10;

impl HeadReader {
    /// A reader at the beginning of a connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let state = State::Head(Head::default());
        Self { limits, state, upgrade: false, is_head: false, is_http_10: false }
    }

    /// Looks at bytes: those that were kept, and new ones behind them.
    pub fn read(&mut self, bytes: &[u8], shared: &HeadVerdict) -> Verdict {
        let mut pass = 0;
        while pass < bytes.len() {
            match self.step(&bytes[pass..], shared) {
                Ok(0) => break,
                Ok(read) => pass += read,
                Err(refused) => {
                    let (Refused::Head(fault) | Refused::Body(fault)) = refused;
                    shared.refuse(fault);
                    self.state = State::Refused;
                    return Verdict { pass, refused: Some(refused) };
                }
            }
        }
        Verdict { pass, refused: None }
    }

    /// Takes bytes for one state; tells how many, which is none if more have to come first.
    fn step(&mut self, bytes: &[u8], shared: &HeadVerdict) -> Result<usize, Refused> {
        match &mut self.state {
            State::Off => Ok(bytes.len()),
            State::Undecided | State::Refused => Ok(0),
            State::Head(head) => {
                let read = head.read(bytes, &self.limits);
                (self.is_head, self.is_http_10) = (head.is_head, head.is_http_10);
                match read.map_err(Refused::Head)? {
                    Read::Partly => Ok(0),
                    Read::Http2 => {
                        shared.http2();
                        self.state = State::Off;
                        Ok(bytes.len())
                    }
                    Read::Whole(read) => {
                        shared.http_10(head.is_http_10);
                        self.upgrade = head.upgrade && !head.is_http_10;
                        self.state = match head.length() {
                            _ if head.chunked => State::ChunkSize(Lines::default()),
                            Some(length @ 1..) => State::Fixed(length),
                            _ => self.over(),
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
                    self.state = if chunk { State::ChunkEnd } else { self.over() };
                }
                Ok(taken)
            }
            State::ChunkSize(lines) => {
                let line = lines.next(bytes).map_err(Refused::Body)?;
                if line.map_or(bytes.len(), <[u8]>::len) > LONGEST_CHUNK_LINE {
                    return Err(Refused::Body(Fault::TooLarge("the line of a chunk's size is too long")));
                }
                let Some(line) = line else { return Ok(0) };
                let (read, size) = (lines.read(), chunk_size(line).map_err(Refused::Body)?);
                self.state = if size == 0 { State::Trailers(Head::default()) } else { State::Chunk(size) };
                Ok(read)
            }
            State::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkSize(Lines::default());
                    Ok(2)
                }
                [b'\r'] => Ok(0),
                _ => Err(Refused::Body(Fault::Malformed("a chunk has another size than it says"))),
            },
            State::Trailers(trailers) => match trailers.read_trailers(bytes, &self.limits).map_err(Refused::Body)? {
                Read::Whole(read) => {
                    self.state = self.over();
                    Ok(read)
                }
                Read::Partly | Read::Http2 => Ok(0),
            },
        }
    }

    /// The state after the end of a message.
    fn over(&self) -> State {
        if self.upgrade { State::Undecided } else { State::Head(Head::default()) }
    }

    /// To be called when the library reads on after the end of a message, which it does when it has answered: with another
    /// protocol from here on, or without.
    pub(crate) fn answered(&mut self, tunnel: bool) {
        if matches!(self.state, State::Undecided) {
            self.state = if tunnel { State::Off } else { State::Head(Head::default()) };
        }
    }

    /// Whether a head is to come, or has come in part.
    pub(super) fn in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// Whether more than empty lines has come of a head of which these bytes are kept.
    pub(super) fn begun(&self, kept: &[u8]) -> bool {
        matches!(&self.state, State::Head(head) if head.begun(kept))
    }

    /// Whether the rest of a request may be under way: its client has to be listened to for a while before the connection
    /// is closed, or it may not hear the answer.
    pub(super) fn in_body(&self) -> bool {
        !matches!(self.state, State::Head(_) | State::Undecided | State::Off)
    }

    /// Gives up on a head that does not come to its end.
    pub(super) fn too_slow(&mut self, shared: &HeadVerdict) {
        shared.refuse(Fault::Slow);
        self.state = State::Refused;
    }

    /// The request that stands for the refused one.
    pub(crate) fn stand_in(&self) -> &'static [u8] {
        downstream::stand_in(self.is_head, self.is_http_10)
    }
}

/// The size in the first line of a chunk.
fn chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let digits = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(digits);
    let size = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    // White space before extensions, or in their place, is an old habit and does no harm.
    let extended = matches!(rest.trim_ascii_start(), [] | [b';', ..]);
    // Extensions are dropped; what could end the line for a careless reader must not be in them.
    let clean = rest.iter().all(|b| *b >= b' ' && *b != 0x7f || *b == b'\t');
    size.filter(|_| extended && clean).ok_or(Fault::Malformed("a chunk has a malformed size"))
}

#[cfg(test)]
mod tests;
