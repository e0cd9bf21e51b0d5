//! The head of a request, or the trailers after its body, read as strictly as RFC 9112 is written.

use memchr::memchr2;

use super::limits::Limits;
use crate::downstream::Fault;

/// A head of which some bytes may have come. It can be given the same bytes again with more behind them.
#[derive(Debug, Default)]
pub(super) struct Head {
    lines: Lines,
    /// The request line has been read.
    begun: bool,
    fields: usize,
    hosts: usize,
    length: Option<u64>,
    pub(super) is_head: bool,
    pub(super) is_http_10: bool,
    pub(super) chunked: bool,
    pub(super) upgrade: bool,
}

/// How far a head has been read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// Its end has not come yet.
    Partly,
    /// It has so many bytes.
    Whole(usize),
    /// It is not a head but the beginning of HTTP/2.
    Http2,
}

/// Finds lines in bytes that come bit by bit.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Where the next line begins.
    start: usize,
    /// Up to where its end was looked for.
    searched: usize,
}

impl Lines {
    /// The next line without its end, if that has come.
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

    /// Bytes of whole lines.
    pub(super) fn read(&self) -> usize {
        self.start
    }
}

/// The characters of a method and of a header's name (`tchar`).
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

impl Head {
    /// Whether a byte of it has come that is not an empty line before it.
    pub(super) fn begun(&self, bytes: &[u8]) -> bool {
        self.begun || bytes.iter().any(|b| !matches!(b, b'\r' | b'\n'))
    }

    /// Reads on. `bytes` are all that have come, from the head's first on.
    pub(super) fn read(&mut self, bytes: &[u8], limits: &Limits) -> Result<Read, Fault> {
        loop {
            let line = self.lines.next(bytes)?;
            let (read, come) = (self.lines.read(), line.map_or(bytes.len(), |_| self.lines.read()));
            if !self.begun && line.map_or(come - read, <[u8]>::len) > limits.request_line {
                // What has come of it may be enough to know how the refusal is to look.
                self.is_head = line.unwrap_or_else(|| &bytes[read..]).starts_with(b"HEAD ");
                return Err(Fault::TargetTooLong);
            }
            if come > limits.head_bytes {
                return Err(Fault::TooLarge("the head of the request is larger than is taken here"));
            }
            let Some(line) = line else { return Ok(Read::Partly) };
            if self.begun {
                if line.is_empty() {
                    self.end()?;
                    no_controls(&bytes[..read])?;
                    return Ok(Read::Whole(read));
                }
                self.field(line, limits)?;
            } else if !line.is_empty() {
                // Empty lines before a request are to be ignored.
                if line == b"PRI * HTTP/2.0" && read == line.len() + 2 {
                    return Ok(Read::Http2);
                }
                self.begun = true;
                self.request_line(line)?;
            }
        }
    }

    /// Reads trailers on, in the same way.
    pub(super) fn read_trailers(&mut self, bytes: &[u8], limits: &Limits) -> Result<Read, Fault> {
        loop {
            let line = self.lines.next(bytes)?;
            let read = self.lines.read();
            if line.map_or(bytes.len(), |_| read) > limits.head_bytes {
                return Err(Fault::TooLarge("the trailers of the request are larger than is taken here"));
            }
            match line {
                None => return Ok(Read::Partly),
                Some([]) => {
                    no_controls(&bytes[..read])?;
                    return Ok(Read::Whole(read));
                }
                Some(line) => {
                    self.field(line, limits)?;
                    if self.hosts > 0 || self.length.is_some() || self.chunked {
                        return Err(Fault::Malformed("a trailer says what only a head may say"));
                    }
                }
            }
        }
    }

    /// Bytes of the body, if their number is known.
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
            return Err(Fault::Malformed("the method has characters that methods do not have"));
        }
        if !self.is_http_10 && version != b"HTTP/1.1" {
            return Err(Fault::Malformed("the version is neither HTTP/1.0 nor HTTP/1.1"));
        }
        let whole = || target.starts_with(b"http://") || target.starts_with(b"https://");
        let fits = match method {
            // By host and port; it is refused by what it asks for.
            b"CONNECT" => !target.is_empty(),
            b"OPTIONS" if target == b"*" => true,
            _ => target.starts_with(b"/") || whole(),
        };
        if !fits {
            return Err(Fault::Malformed("the target is neither a path nor a whole URI"));
        }
        if memchr2(b'#', b'\t', target).is_some() {
            return Err(Fault::Malformed("the target has characters that targets do not have"));
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
            Some(_) => return Err(Fault::Malformed("a header's name has characters that names do not have")),
        };
        self.fields += 1;
        if self.fields > limits.headers {
            return Err(Fault::TooLarge("the request has more headers than are taken here"));
        }
        // Told apart by their lengths first, which is what nearly every header costs.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.hosts += 1,
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let value = value.trim_ascii();
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|v| v.parse().ok());
                let Some(length) = length else { return Err(Fault::Malformed("Content-Length is not a number")) };
                if self.length.is_some_and(|former| former != length) {
                    return Err(Fault::Malformed("several Content-Lengths differ"));
                }
                self.length = Some(length);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Malformed("Transfer-Encoding is something else than chunked"));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks what only the whole head tells.
    fn end(&self) -> Result<(), Fault> {
        match (self.chunked, self.length) {
            (true, Some(_)) => {
                return Err(Fault::Malformed("the request has both Transfer-Encoding and Content-Length"));
            }
            (true, None) if self.is_http_10 => return Err(Fault::Malformed("HTTP/1.0 has no Transfer-Encoding")),
            _ => {}
        }
        match self.hosts {
            0 if !self.is_http_10 => Err(Fault::Malformed("the request names no host")),
            0 | 1 => Ok(()),
            _ => Err(Fault::Malformed("the request names more than one host")),
        }
    }
}

/// Line ends are known to be where they belong; every other control character but the tab is none that HTTP knows.
fn no_controls(bytes: &[u8]) -> Result<(), Fault> {
    // Without a way out in the middle, so that many bytes are looked at at once.
    let found = bytes
        .iter()
        .fold(false, |found, b| found | ((*b < b' ') & (*b != b'\t') & (*b != b'\r') & (*b != b'\n')) | (*b == 0x7f));
    if found { Err(Fault::Malformed("the request has a control character")) } else { Ok(()) }
}
