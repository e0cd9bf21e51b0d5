//! Parser of a request head, or of the trailers after a body, as strict as RFC 9112.

use memchr::memchr2;

use super::{limits::Limits, target};
use crate::downstream::Fault;

/// A head that may be incomplete. It can be given the same bytes again with more after them.
#[derive(Debug, Default)]
pub(super) struct HeadParser {
    lines: Lines,
    /// The request line has been parsed.
    begun: bool,
    fields: usize,
    hosts: usize,
    length: Option<u64>,
    pub(super) is_head: bool,
    pub(super) is_http_10: bool,
    pub(super) chunked: bool,
    pub(super) upgrade: bool,
}

/// Progress of a head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// More bytes are needed.
    Incomplete,
    /// It has this many bytes.
    Complete(usize),
    /// It is the HTTP/2 connection preface.
    Http2Preface,
}

/// Finds lines in bytes that arrive in pieces.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Start of the next line.
    start: usize,
    /// Position up to which its end was searched.
    searched: usize,
}

impl Lines {
    /// Returns the next complete line without its end.
    pub(super) fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        let Some(at) = memchr2(b'\r', b'\n', &bytes[self.searched..]) else {
            self.searched = bytes.len();
            return Ok(None);
        };
        let end = self.searched + at;
        match bytes[end..] {
            [b'\r'] => {
                self.searched = end;
                return Ok(None);
            }
            [b'\r', b'\n', ..] => {}
            [b'\r', ..] => return Err(Fault::Malformed("the request has a bare carriage return")),
            _ => return Err(Fault::Malformed("a line of the request ends in a bare line feed")),
        }
        let line = &bytes[self.start..end];
        self.start = end + 2;
        self.searched = self.start;
        Ok(Some(line))
    }

    /// Returns the bytes of complete lines.
    pub(super) fn read(&self) -> usize {
        self.start
    }
}

/// Characters of a method and of a header name (`tchar`).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

impl HeadParser {
    /// Whether it has a byte that is not part of an empty line before it.
    pub(super) fn begun(&self, bytes: &[u8]) -> bool {
        self.begun || bytes.iter().any(|b| !matches!(b, b'\r' | b'\n'))
    }

    /// Parses further. `bytes` are all that have arrived of the head.
    pub(super) fn read(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, Fault> {
        loop {
            let line = self.lines.next(bytes)?;
            let (read, arrived) = (self.lines.read(), line.map_or(bytes.len(), |_| self.lines.read()));
            if !self.begun && line.map_or(arrived - read, <[u8]>::len) > limits.request_line {
                // The part that has arrived may determine what the rejection looks like.
                self.is_head = line.unwrap_or_else(|| &bytes[read..]).starts_with(b"HEAD ");
                return Err(Fault::TargetTooLong);
            }
            if arrived > limits.head_bytes {
                return Err(Fault::TooLarge("the request header is too large"));
            }
            let Some(line) = line else { return Ok(Parsed::Incomplete) };
            if self.begun {
                if line.is_empty() {
                    self.end()?;
                    no_controls(&bytes[..read])?;
                    return Ok(Parsed::Complete(read));
                }
                self.field(line, limits)?;
            } else if !line.is_empty() {
                // Empty lines before a request are ignored.
                if line == b"PRI * HTTP/2.0" && read == line.len() + 2 {
                    return Ok(Parsed::Http2Preface);
                }
                self.begun = true;
                self.request_line(line)?;
            }
        }
    }

    /// Parses trailers further, in the same way.
    pub(super) fn read_trailers(&mut self, bytes: &[u8], limits: &Limits) -> Result<Parsed, Fault> {
        loop {
            let line = self.lines.next(bytes)?;
            let read = self.lines.read();
            if line.map_or(bytes.len(), |_| read) > limits.head_bytes {
                return Err(Fault::TooLarge("the trailers of the request are too large"));
            }
            match line {
                None => return Ok(Parsed::Incomplete),
                Some([]) => {
                    no_controls(&bytes[..read])?;
                    return Ok(Parsed::Complete(read));
                }
                Some(line) => {
                    self.field(line, limits)?;
                    if self.hosts > 0 || self.length.is_some() || self.chunked {
                        return Err(Fault::Malformed("a trailer has a field that is allowed in the header only"));
                    }
                }
            }
        }
    }

    /// Returns the value of Content-Length.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let mut words = line.split(|b| *b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Fault::Malformed("the request line is not a method, a target and a version"));
        };
        self.is_head = method == b"HEAD";
        self.is_http_10 = version == b"HTTP/1.0";
        if method.is_empty() || !method.iter().all(|b| TOKEN[usize::from(*b)]) {
            return Err(Fault::Malformed("the method has invalid characters"));
        }
        if !self.is_http_10 && version != b"HTTP/1.1" {
            return Err(Fault::Malformed("the HTTP version is neither 1.0 nor 1.1"));
        }
        let whole = || target.starts_with(b"http://") || target.starts_with(b"https://");
        let fits = match method {
            // The authority form; the request is rejected later as not supported.
            b"CONNECT" => !target.is_empty(),
            b"OPTIONS" if target == b"*" => true,
            _ => target.starts_with(b"/") || whole(),
        };
        if !fits {
            return Err(Fault::Malformed("the request target is neither a path nor an absolute URI"));
        }
        if target.len() > target::LONGEST {
            return Err(Fault::TargetTooLong);
        }
        if !target::is_readable(target) {
            return Err(Fault::Malformed("the request target has invalid characters"));
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8], limits: &Limits) -> Result<(), Fault> {
        let end = line.iter().position(|b| !TOKEN[usize::from(*b)]);
        let (name, value) = match end.map(|end| (end, line[end])) {
            Some((0, b' ' | b'\t')) => return Err(Fault::Malformed("a header is continued on a second line")),
            Some((end @ 1.., b':')) => (&line[..end], &line[end + 1..]),
            Some((_, b' ' | b'\t')) => {
                return Err(Fault::Malformed("a header has white space in or after its name"));
            }
            Some((0, b':')) => return Err(Fault::Malformed("a header has no name")),
            None => return Err(Fault::Malformed("a header has no colon")),
            Some(_) => return Err(Fault::Malformed("a header name has invalid characters")),
        };
        self.fields += 1;
        if self.fields > limits.headers {
            return Err(Fault::TooLarge("the request has too many headers"));
        }
        // Compared by length first, which is all that most headers cost.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts += 1,
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let value = value.trim_ascii();
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|v| v.parse().ok());
                // The library has other meanings for the last two numbers.
                let length = length.filter(|length| *length <= u64::MAX - 2);
                let Some(length) = length else { return Err(Fault::Malformed("Content-Length is not a number")) };
                if self.length.is_some_and(|previous| previous != length) {
                    return Err(Fault::Malformed("the request has different values of Content-Length"));
                }
                self.length = Some(length);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Malformed("Transfer-Encoding is not chunked"));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks the head as a whole.
    fn end(&self) -> Result<(), Fault> {
        match (self.chunked, self.length) {
            (true, Some(_)) => {
                return Err(Fault::Malformed("the request has both Transfer-Encoding and Content-Length"));
            }
            (true, None) if self.is_http_10 => {
                return Err(Fault::Malformed("HTTP/1.0 does not allow Transfer-Encoding"));
            }
            _ => {}
        }
        match self.hosts {
            0 if !self.is_http_10 => Err(Fault::Malformed("the request names no host")),
            0 | 1 => Ok(()),
            _ => Err(Fault::Malformed("the request names more than one host")),
        }
    }
}

/// Rejects control characters except tab. Line ends were checked before.
fn no_controls(bytes: &[u8]) -> Result<(), Fault> {
    // Without an early exit, so that many bytes are checked at once.
    let found = bytes
        .iter()
        .fold(false, |found, b| found | ((*b < b' ') & (*b != b'\t') & (*b != b'\r') & (*b != b'\n')) | (*b == 0x7f));
    if found { Err(Fault::Malformed("the request has a control character")) } else { Ok(()) }
}
