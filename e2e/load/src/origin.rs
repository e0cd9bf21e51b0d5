//! The origin server: one thread, with one read and one write per request.

use std::{
    collections::HashMap,
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
};

use anyhow::{Context as _, Result};
use mio::{
    Events, Interest, Poll, Registry, Token,
    net::{TcpListener, TcpStream},
};

use crate::message::Head;

const LISTENER: Token = Token(usize::MAX - 1);
const READ: usize = 64 * 1024;
/// A hundred bytes.
const BODY: &str =
    "One hundred bytes of a response, about as much as a small function returns to a small request......\n";

/// Serves until the process is killed. `GET /echo` returns the head of the request, and `GET /count` the number of other
/// requests, so that a benchmark can verify that its requests reached this origin unchanged.
///
/// # Errors
///
/// If the address cannot be bound.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    println!("{}", listener.local_addr()?);
    serve_all(listener)
}

fn serve_all(mut listener: TcpListener) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut origin = Origin { peers: HashMap::new(), next: 0, count: 0, buffer: vec![0; READ] };
    loop {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            match event.token() {
                LISTENER => origin.accept(&listener, poll.registry())?,
                Token(peer) => origin.respond(peer, event.is_read_closed()),
            }
        }
    }
}

struct Origin {
    /// Bounded by the process's limit of open files.
    peers: HashMap<usize, Peer>,
    next: usize,
    count: u64,
    buffer: Vec<u8>,
}

struct Peer {
    stream: TcpStream,
    /// Incomplete head.
    received: Vec<u8>,
    /// Remaining bytes of a request body, which are discarded.
    skip: usize,
    unsent: Vec<u8>,
}

impl Origin {
    fn accept(&mut self, listener: &TcpListener, registry: &Registry) -> Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("cannot accept"),
            };
            stream.set_nodelay(true)?;
            let token = self.next;
            self.next += 1;
            registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
            self.peers.insert(token, Peer { stream, received: vec![], skip: 0, unsent: vec![] });
        }
    }

    /// Reads the available bytes, responds to complete requests, and drops a peer that closed or sent an invalid request.
    fn respond(&mut self, token: usize, closed: bool) {
        let Some(peer) = self.peers.get_mut(&token) else { return };
        if !peer.serve(&mut self.buffer, &mut self.count, closed) {
            self.peers.remove(&token);
        }
    }
}

impl Peer {
    /// Returns whether to keep the connection. `closed` is whether the client has closed its side.
    fn serve(&mut self, buffer: &mut [u8], count: &mut u64, closed: bool) -> bool {
        let mut keep = true;
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => {
                    keep = false;
                    break;
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            self.received.extend_from_slice(&buffer[..read]);
            if let Err(error) = self.take_requests(count) {
                eprintln!("Invalid request: {error:#}");
                return false;
            }
            // A short read has emptied the socket: epoll reports later bytes, but a close only once.
            if read < buffer.len() && !closed {
                break;
            }
        }
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        keep
    }

    fn take_requests(&mut self, count: &mut u64) -> Result<()> {
        loop {
            let skipped = self.skip.min(self.received.len());
            self.received.drain(..skipped);
            self.skip -= skipped;
            let Some(head) = Head::read(&self.received)? else { return Ok(()) };
            if self.received.starts_with(b"GET /echo ") {
                let body = self.received[..head.length].to_vec();
                self.queue_response(&body);
            } else if self.received.starts_with(b"GET /count ") {
                self.queue_response(count.to_string().as_bytes());
            } else {
                *count += 1;
                self.queue_response(BODY.as_bytes());
            }
            self.received.drain(..head.length);
            self.skip = head.body;
        }
    }

    fn queue_response(&mut self, body: &[u8]) {
        self.unsent.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ");
        self.unsent.extend_from_slice(body.len().to_string().as_bytes());
        self.unsent.extend_from_slice(b"\r\n\r\n");
        self.unsent.extend_from_slice(body);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;
    use crate::{
        closed,
        counted::{self, Count},
        open,
        report::Plan,
    };

    /// Starts an origin that runs until the test process exits.
    fn origin() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve_all(listener));
        address
    }

    /// Sends these parts, closes the client's side, and returns the responses.
    fn exchange(target: SocketAddr, parts: &[&str]) -> String {
        let mut stream = std::net::TcpStream::connect(target).unwrap();
        for part in parts {
            stream.write_all(part.as_bytes()).unwrap();
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    fn plan(target: SocketAddr) -> Plan {
        let watched = vec![std::process::id()];
        Plan { target, host: "a".to_owned(), connections: 2, warm_up: 50, measured: 300, watched }
    }

    #[test]
    fn requests_are_parsed_across_any_split() {
        let target = origin();
        let text =
            exchange(target, &["POST / HTTP/1.1\r\nContent-Le", "ngth: 5\r\n\r\nhel", "loGET /count HTTP/1.1\r\n\r\n"]);
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
        assert!(text.contains(BODY) && text.ends_with("\r\n\r\n1"), "{text}");
        assert_eq!(BODY.len(), 100);
        assert!(exchange(target, &["GET /echo HTTP/1.1\r\nX: y\r\n\r\n"]).contains("X: y"));
    }

    #[test]
    fn both_loops_count_responses() {
        let target = origin();
        let report = closed::run(&plan(target)).unwrap();
        assert!(report.responses > 0 && report.p50_us > 0.0 && report.seconds >= 0.3, "{report:?}");
        assert_eq!((report.failures, report.reconnects), (0, 0), "{report:?}");
        let report = open::run(&plan(target), 200).unwrap();
        assert_eq!((report.responses, report.failures), (60, 0), "{report:?}");
    }

    #[test]
    fn a_counted_run_sends_exactly_its_requests() {
        let target = origin();
        for requests in [3, 100] {
            counted::run(&Count { target, host: "a".to_owned(), connections: 3, requests }).unwrap();
        }
        let text = exchange(target, &["GET /count HTTP/1.1\r\n\r\n"]);
        assert!(text.ends_with("\r\n\r\n103"), "{text}");
    }

    #[test]
    fn missing_responses_are_counted_as_failures() {
        let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closes = deaf.local_addr().unwrap();
        std::thread::spawn(move || deaf.incoming().for_each(drop));
        let report = closed::run(&plan(closes)).unwrap();
        assert!(report.responses == 0 && report.failures > 0 && report.first_failure.is_some(), "{report:?}");
        let count = Count { target: closes, host: "a".to_owned(), connections: 2, requests: 10 };
        assert!(counted::run(&count).is_err());
    }
}
