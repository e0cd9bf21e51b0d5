//! A second reader of the heads of requests, which only looks for what two servers may read in two ways.
//!
//! The HTTP library is lenient in places (a line that ends in a bare line feed) and silent in others (it drops
//! Content-Length where there is Transfer-Encoding). Neither is dangerous by itself, since every request is written anew
//! towards the pod, but a client that sends such a thing is broken or up to something. This reader sees the bytes before the
//! library does and follows them from message to message; what it finds is answered with 400.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// What was found in the heads of a connection's requests.
#[derive(Debug, Default)]
pub struct HeadVerdict {
    fault: OnceLock<&'static str>,
    tunnel: AtomicBool,
}

/// Follows the bytes of one connection from message to message.
#[derive(Debug, Default)]
pub(crate) struct HeadReader {
    state: State,
    /// The part of a line that has come so far.
    line: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Fixed(u64),
    ChunkSize,
    /// With the line end after it.
    Chunk(u64),
    Trailers,
    /// HTTP/2, a tunnel, or something that was refused already.
    Off,
}

#[derive(Debug, Default)]
struct Head {
    /// The request line has been read.
    begun: bool,
    http_10: bool,
    length: Option<u64>,
    coded: bool,
}

/// Longer lines are refused by the library with 431.
const LONGEST_LINE: usize = 128 << 10;

impl HeadVerdict {
    /// What is wrong, if something is.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        self.fault.get().copied()
    }

    /// From here on the connection does not carry HTTP.
    pub(crate) fn tunnel(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

impl HeadReader {
    /// Takes the next bytes of the connection.
    pub(crate) fn read(&mut self, mut bytes: &[u8], verdict: &HeadVerdict) {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Off => return,
                State::Head(_) if verdict.tunnel.load(Ordering::Relaxed) => self.state = State::Off,
                State::Fixed(left) | State::Chunk(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    bytes = &bytes[taken..];
                    if *left == 0 {
                        let chunked = matches!(self.state, State::Chunk(_));
                        self.state = if chunked { State::ChunkSize } else { State::default() };
                    }
                }
                State::Head(_) | State::ChunkSize | State::Trailers => {
                    let end = bytes.iter().position(|b| *b == b'\n');
                    let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
                    bytes = rest;
                    let done = if end.is_none() || !self.line.is_empty() {
                        self.line.extend_from_slice(part);
                        None
                    } else {
                        Some(part)
                    };
                    if end.is_some() {
                        let line = std::mem::take(&mut self.line);
                        if let Err(fault) = self.line(done.unwrap_or(&line)) {
                            // The first fault is the one that is told.
                            verdict.fault.get_or_init(|| fault);
                            self.state = State::Off;
                        }
                    } else if self.line.len() > LONGEST_LINE {
                        self.state = State::Off;
                    }
                }
            }
        }
    }

    /// Takes a whole line with its end.
    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err("a line of the request ends in a bare line feed");
        };
        if line.contains(&b'\r') {
            return Err("a line of the request has a bare carriage return");
        }
        match &mut self.state {
            State::Head(head) => {
                if let Some(next) = head.line(line)? {
                    self.state = next;
                }
            }
            State::ChunkSize => {
                let size = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
                let size = std::str::from_utf8(size)
                    .ok()
                    .filter(|s| !s.is_empty() && s.bytes().all(|b| b.is_ascii_hexdigit()));
                let size = size.and_then(|s| u64::from_str_radix(s, 16).ok()).filter(|n| *n < u64::MAX - 2);
                let Some(size) = size else { return Err("a chunk has a malformed size") };
                self.state = if size == 0 { State::Trailers } else { State::Chunk(size + 2) };
            }
            State::Trailers if line.is_empty() => self.state = State::default(),
            _ => {}
        }
        Ok(())
    }
}

impl Head {
    /// Takes a line without its end; tells what comes after the head once it is over.
    fn line(&mut self, line: &[u8]) -> Result<Option<State>, &'static str> {
        if !self.begun {
            // Empty lines before a request are to be ignored.
            self.begun = !line.is_empty();
            self.http_10 = line.ends_with(b"HTTP/1.0");
            return Ok((line == b"PRI * HTTP/2.0").then_some(State::Off));
        }
        if line.is_empty() {
            return self.end().map(Some);
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err("a header is continued on a second line");
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else { return Err("a header has no colon") };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
            return Err("a header has white space in or after its name");
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|v| v.parse().ok());
            let Some(length) = length else { return Err("Content-Length is not a number") };
            if self.length.is_some_and(|former| former != length) {
                return Err("several Content-Lengths differ");
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.coded || !value.eq_ignore_ascii_case(b"chunked") {
                return Err("Transfer-Encoding is something else than chunked");
            }
            self.coded = true;
        }
        Ok(None)
    }

    fn end(&self) -> Result<State, &'static str> {
        match (self.coded, self.length) {
            (true, Some(_)) => Err("the request has both Transfer-Encoding and Content-Length"),
            (true, None) if self.http_10 => Err("HTTP/1.0 has no Transfer-Encoding"),
            (true, None) => Ok(State::ChunkSize),
            (false, Some(length)) if length > 0 => Ok(State::Fixed(length)),
            (false, _) => Ok(State::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn verdict(text: &str, step: usize) -> Option<&'static str> {
        let (mut reader, verdict) = (HeadReader::default(), HeadVerdict::default());
        for part in text.as_bytes().chunks(step) {
            reader.read(part, &verdict);
        }
        verdict.fault()
    }

    #[rstest]
    #[case::plain("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")]
    #[case::leading_lines("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")]
    #[case::fixed("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\nx: \nGET / HTTP/1.1\r\n\r\n")]
    #[case::same_length_twice(
        "POST / HTTP/1.1\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nabGET / HTTP/1.1\r\n\r\n"
    )]
    #[case::chunked(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n\n\r\n\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    )]
    #[case::http2("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n: x\n")]
    fn fine(#[case] text: &str) {
        for step in 1..text.len() {
            assert_eq!(verdict(text, step), None, "in steps of {step}");
        }
    }

    #[rstest]
    #[case("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n")]
    #[case("POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n")]
    #[case("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n")]
    #[case("POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n")]
    #[case("POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n")]
    #[case("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")]
    #[case("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")]
    #[case("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n")]
    #[case("GET / HTTP/1.1\nHost: a\r\n\r\n")]
    #[case("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n")]
    #[case("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n")]
    #[case("GET / HTTP/1.1\r\nHost : a\r\n\r\n")]
    #[case("GET / HTTP/1.1\r\nHost\r\n\r\n")]
    #[case("GET / HTTP/1.1\r\n: a\r\n\r\n")]
    #[case("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")]
    #[case("GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n")]
    fn refused(#[case] text: &str) {
        for step in 1..=text.len() {
            assert!(verdict(text, step).is_some(), "in steps of {step}");
        }
    }

    #[test]
    fn nothing_is_read_in_a_tunnel() {
        let (mut reader, verdict) = (HeadReader::default(), HeadVerdict::default());
        reader.read(b"GET / HTTP/1.1\r\n\r\n", &verdict);
        verdict.tunnel();
        reader.read(b"anything\n: at all\n", &verdict);
        assert_eq!(verdict.fault(), None);
    }
}
