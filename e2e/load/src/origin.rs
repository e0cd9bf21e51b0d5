//! The origin: one thread, one read and one write for a request.

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
    "One hundred bytes of an answer, about what a small function says to a call that asks for little....\n";

/// Serves until the process is killed. `GET /echo` answers with the head that came, and `GET /count` with how many other
/// requests have come, so that a test can see that it was this origin that was reached, and how.
///
/// # Errors
///
/// If the address cannot be bound.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    println!("{}", listener.local_addr()?);
    answer_all(listener)
}

fn answer_all(mut listener: TcpListener) -> Result<()> {
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
                Token(peer) => origin.answer(peer, event.is_read_closed()),
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
    /// A head that is not all there.
    received: Vec<u8>,
    /// Bytes of a body that are still to come and are of no interest.
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

    /// Reads what has come, answers what is whole, and forgets a peer that has gone or says what is not understood.
    fn answer(&mut self, token: usize, closed: bool) {
        let Some(peer) = self.peers.get_mut(&token) else { return };
        if !peer.serve(&mut self.buffer, &mut self.count, closed) {
            self.peers.remove(&token);
        }
    }
}

impl Peer {
    /// Whether it stays. `closed` says that its last byte has come.
    fn serve(&mut self, buffer: &mut [u8], count: &mut u64, closed: bool) -> bool {
        let mut stays = true;
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => {
                    stays = false;
                    break;
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            self.received.extend_from_slice(&buffer[..read]);
            if let Err(error) = self.take_requests(count) {
                eprintln!("A request is not understood: {error:#}");
                return false;
            }
            // A short read has emptied the socket: epoll tells of what comes later, though not twice of an end.
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
        stays
    }

    fn take_requests(&mut self, count: &mut u64) -> Result<()> {
        loop {
            let skipped = self.skip.min(self.received.len());
            self.received.drain(..skipped);
            self.skip -= skipped;
            let Some(head) = Head::read(&self.received)? else { return Ok(()) };
            if self.received.starts_with(b"GET /echo ") {
                let body = self.received[..head.length].to_vec();
                self.say(&body);
            } else if self.received.starts_with(b"GET /count ") {
                self.say(count.to_string().as_bytes());
            } else {
                *count += 1;
                self.say(BODY.as_bytes());
            }
            self.received.drain(..head.length);
            self.skip = head.body;
        }
    }

    fn say(&mut self, body: &[u8]) {
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
    use crate::{closed, open, report::Plan};

    /// An origin that ends with the test process.
    fn origin() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || answer_all(listener));
        address
    }

    /// What the origin says to all of this, if the client closes after it.
    fn say(target: SocketAddr, parts: &[&str]) -> String {
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
    fn requests_are_told_apart_whatever_the_pieces() {
        let target = origin();
        let text =
            say(target, &["POST / HTTP/1.1\r\nContent-Le", "ngth: 5\r\n\r\nhel", "loGET /count HTTP/1.1\r\n\r\n"]);
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
        assert!(text.contains(BODY) && text.ends_with("\r\n\r\n1"), "{text}");
        assert_eq!(BODY.len(), 100);
        assert!(say(target, &["GET /echo HTTP/1.1\r\nX: y\r\n\r\n"]).contains("X: y"));
    }

    #[test]
    fn both_loops_count_what_the_origin_counts() {
        let target = origin();
        let report = closed::run(&plan(target)).unwrap();
        assert!(report.answers > 0 && report.p50_us > 0.0 && report.seconds >= 0.3, "{report:?}");
        assert_eq!((report.failures, report.reconnects), (0, 0), "{report:?}");
        let report = open::run(&plan(target), 200).unwrap();
        assert_eq!((report.answers, report.failures), (60, 0), "{report:?}");
    }

    #[test]
    fn what_does_not_answer_is_counted() {
        let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closes = deaf.local_addr().unwrap();
        std::thread::spawn(move || deaf.incoming().for_each(drop));
        let report = closed::run(&plan(closes)).unwrap();
        assert!(report.answers == 0 && report.failures > 0 && report.first_failure.is_some(), "{report:?}");
    }
}
