//! Minimal HTTP/1.1 parser: end of the head, length of the body, status.

use anyhow::{Result, bail};

/// The head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Length of the head with its empty line, in bytes.
    pub(crate) length: usize,
    /// Length of the body, in bytes.
    pub(crate) body: usize,
    /// Whether the sender closes the connection after this message.
    pub(crate) closes: bool,
}

impl Head {
    /// Parses the head at the start of `buffer`; `None` if it is incomplete.
    ///
    /// # Errors
    ///
    /// If the message uses `Transfer-Encoding`, which no subject of the benchmarks does.
    pub(crate) fn read(buffer: &[u8]) -> Result<Option<Self>> {
        let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let mut head = Self { length: end + 4, body: 0, closes: false };
        for line in buffer[..end].split(|byte| *byte == b'\n').skip(1) {
            // Most lines are skipped by their first byte.
            match line.first() {
                Some(b'c' | b'C') => {
                    if let Some(value) = value(line, b"content-length:") {
                        head.body = std::str::from_utf8(value)?.trim().parse()?;
                    } else if let Some(value) = value(line, b"connection:") {
                        head.closes = value.trim_ascii().eq_ignore_ascii_case(b"close");
                    }
                }
                Some(b't' | b'T') if value(line, b"transfer-encoding:").is_some() => {
                    bail!("Transfer-Encoding is not supported");
                }
                _ => {}
            }
        }
        Ok(Some(head))
    }

    /// Returns the length of the message, in bytes.
    pub(crate) fn total(&self) -> usize {
        self.length + self.body
    }
}

fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(rest)
}

/// Returns the status of a response.
pub(crate) fn status(buffer: &[u8]) -> Option<u16> {
    let digits = buffer.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_head_is_parsed() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nconnection: Close\r\n\r\nhello, and more";
        let head = Head::read(whole).unwrap().unwrap();
        assert_eq!((head.length, head.body, head.closes), (57, 5, true));
        assert_eq!(&whole[head.length..head.total()], b"hello");
        assert_eq!(Head::read(&whole[..56]).unwrap(), None);
        assert_eq!(status(whole), Some(200));
    }

    #[test]
    fn a_request_without_a_body_has_none() {
        let head = Head::read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.total(), head.closes), (27, false));
    }

    #[test]
    fn an_invalid_head_is_an_error() {
        assert!(Head::read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").is_err());
        assert!(Head::read(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
        assert_eq!(status(b"SSH-2.0"), None);
    }
}
