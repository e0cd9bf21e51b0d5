//! A naive reader of HTTP/1 connections: what RFC 9112 says, line by line, with no care for speed. It shares no code with
//! what it is compared with, and says so where the RFC leaves a choice.

/// A request that every reader has to understand in this one way.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) method: String,
    pub(super) target: String,
    /// Without port and trailing dot, in lower case.
    pub(super) host: String,
    pub(super) body: Vec<u8>,
}

/// How it goes on after the requests that are certain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a head that must be refused.
    Refused(&'static str),
    /// The bytes end before the head does.
    Head,
    /// The bytes end before the body does, or the body is broken.
    Body,
    /// With something that may be read in several ways.
    Unsure,
}

use End::{Refused, Unsure};

/// Reads a connection up to the first thing that is not certain.
pub(super) fn read(bytes: &[u8]) -> (Vec<Message>, End) {
    let (mut messages, mut rest) = (vec![], bytes);
    loop {
        if rest.is_empty() {
            return (messages, End::Head);
        }
        match message(rest) {
            Ok((message, after, goes_on)) => {
                messages.push(message);
                if !goes_on {
                    return (messages, Unsure);
                }
                rest = after;
            }
            Err(end) => return (messages, end),
        }
    }
}

/// One request, what comes after it, and whether the connection is certain to go on.
fn message(bytes: &[u8]) -> Result<(Message, &[u8], bool), End> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or(End::Head);
    if end.is_err() && bytes.contains(&b'\n') {
        // Some lines are there, and may be wrong already.
        return Err(Unsure);
    }
    let end = end?;
    let (head, after) = (&bytes[..end], &bytes[end + 4..]);
    if head.starts_with(b"\r\n") || head.is_empty() {
        // Empty lines before a request may be ignored.
        return Err(Unsure);
    }
    let text: String = head.iter().map(|b| char::from(*b)).collect();
    let mut lines = text.split("\r\n");
    let (method, target, version) = request_line(lines.next().unwrap_or_default())?;
    let mut headers = vec![];
    for line in lines {
        headers.push(header(line)?);
    }
    let all = |name: &str| -> Vec<&str> {
        headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    };
    let framing = framing(&all("content-length"), &all("transfer-encoding"), version)?;
    let host = match all("host")[..] {
        [host] => known_host(host)?,
        [] if version == "HTTP/1.1" => return Err(Refused("no Host")),
        [] => return Err(Unsure),
        _ => return Err(Refused("several Hosts")),
    };
    if headers.len() > 100 {
        return Err(Unsure);
    }
    let (body, after) = match framing {
        Framing::Length(length) if after.len() < length => return Err(End::Body),
        Framing::Length(length) => (after[..length].to_vec(), &after[length..]),
        Framing::Chunked => chunked(after)?,
    };
    let goes_on = version == "HTTP/1.1" && all("connection").is_empty() && all("upgrade").is_empty();
    Ok((Message { method, target, host, body }, after, goes_on))
}

fn request_line(line: &str) -> Result<(String, String, &str), End> {
    if line.contains(['\r', '\n']) {
        return Err(Refused("a bare CR or LF"));
    }
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = parts[..] else { return Err(Refused("not three parts in the request line")) };
    if !["HTTP/1.1", "HTTP/1.0"].contains(&version) {
        return Err(if version.starts_with("HTTP/") { Unsure } else { Refused("no version") });
    }
    if !["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].contains(&method) {
        return Err(Unsure);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@?".contains(c);
    if !target.starts_with('/') || target.starts_with("//") || !target.chars().all(plain) {
        return Err(Unsure);
    }
    Ok((method.to_owned(), target.to_owned(), version))
}

fn header(line: &str) -> Result<(String, String), End> {
    if line.contains(['\r', '\n']) {
        return Err(Refused("a bare CR or LF"));
    }
    if line.starts_with([' ', '\t']) {
        return Err(Refused("a folded header"));
    }
    let Some((name, value)) = line.split_once(':') else { return Err(Refused("a header without a colon")) };
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(token) {
        return Err(Refused("a header whose name is no token"));
    }
    if value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return Err(Refused("a control character in a value"));
    }
    if !value.is_ascii() {
        return Err(Unsure);
    }
    Ok((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

enum Framing {
    Length(usize),
    Chunked,
}

fn framing(lengths: &[&str], codings: &[&str], version: &str) -> Result<Framing, End> {
    let numbers: Option<Vec<u64>> = lengths
        .iter()
        .map(|l| (!l.is_empty() && l.bytes().all(|b| b.is_ascii_digit())).then(|| l.parse().ok())?)
        .collect();
    let Some(numbers) = numbers else { return Err(Refused("a Content-Length that is no number")) };
    match (numbers.as_slice(), codings) {
        ([], []) => Ok(Framing::Length(0)),
        ([number], []) => usize::try_from(*number).ok().filter(|n| *n < 1 << 40).map(Framing::Length).ok_or(Unsure),
        ([first, others @ ..], []) if others.iter().any(|n| n != first) => Err(Refused("two Content-Lengths")),
        (_, []) => Err(Unsure),
        ([], [coding]) if version == "HTTP/1.1" && coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
        ([], _) if version == "HTTP/1.0" => Err(Refused("Transfer-Encoding in HTTP/1.0")),
        ([], _) => Err(Refused("a Transfer-Encoding that is not chunked")),
        _ => Err(Refused("Transfer-Encoding and Content-Length")),
    }
}

fn known_host(text: &str) -> Result<String, End> {
    let (name, port) = text.split_once(':').unwrap_or((text, "80"));
    let label = |l: &str| !l.is_empty() && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let name = name.strip_suffix('.').unwrap_or(name);
    let port = port.len() <= 4 && port.chars().all(|c| c.is_ascii_digit());
    if text.contains(['@', '/', ' ', ',', '?', '#', '\\']) {
        return Err(Refused("a Host that is none"));
    }
    (port && name.len() < 254 && name.split('.').all(label)).then(|| name.to_lowercase()).ok_or(Unsure)
}

fn chunked(mut bytes: &[u8]) -> Result<(Vec<u8>, &[u8]), End> {
    let mut body = vec![];
    loop {
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else { return Err(End::Body) };
        let Some(size) = bytes[..end].strip_suffix(b"\r") else { return Err(End::Body) };
        if size.is_empty() || !size[0].is_ascii_hexdigit() {
            return Err(End::Body);
        }
        if size.len() > 8 || !size.iter().all(u8::is_ascii_hexdigit) {
            // An extension, white space, or a size that is too large.
            return Err(Unsure);
        }
        let size = size.iter().fold(0, |sum, b| sum * 16 + char::from(*b).to_digit(16).map_or(0, |d| d as usize));
        bytes = &bytes[end + 1..];
        if size == 0 {
            // Trailers are left to others.
            return bytes.strip_prefix(b"\r\n").map(|rest| (body, rest)).ok_or(if bytes.len() < 2 {
                End::Body
            } else {
                Unsure
            });
        }
        if bytes.len() < size + 2 || &bytes[size..size + 2] != b"\r\n" {
            return Err(End::Body);
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
}
