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
    "One hundred bytes of an answer, which is about what a small function says to a call that asks little\n";

/// Serves until the process is killed. `GET /echo` answers with the head that came, and `GET /count` with how many other
/// requests have come, so that a test can see that it was this origin that was reached, and how.
///
/// # Errors
///
/// If the address cannot be bound.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    println!("{}", listener.local_addr()?);
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
                Token(peer) => origin.answer(peer),
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
    fn answer(&mut self, token: usize) {
        let Some(peer) = self.peers.get_mut(&token) else { return };
        if !peer.serve(&mut self.buffer, &mut self.count) {
            self.peers.remove(&token);
        }
    }
}

impl Peer {
    /// Whether it stays.
    fn serve(&mut self, buffer: &mut [u8], count: &mut u64) -> bool {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return false,
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
            if read < buffer.len() {
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
        true
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
