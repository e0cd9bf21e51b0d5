//! One keep-alive connection of a client, with at most one request in flight.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::Instant,
};

use anyhow::{Context as _, Result};
use mio::{Interest, Registry, Token, net::TcpStream};

use crate::message::{self, Head};

/// Read buffer, in bytes; larger than any expected response.
const READ: usize = 16 * 1024;

/// A connection to the target.
#[derive(Debug)]
pub(crate) struct Connection {
    target: SocketAddr,
    token: Token,
    stream: TcpStream,
    received: Vec<u8>,
    /// Time when the request in flight was sent, or was due.
    pub(crate) since: Option<Instant>,
}

/// Result of a read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// No complete response yet.
    Nothing,
    /// A complete response with 200, and whether the server closes the connection.
    Response { closes: bool },
    /// Anything else; the connection cannot be used any more.
    Broken(String),
}

impl Connection {
    pub(crate) fn open(target: SocketAddr, token: Token, registry: &Registry) -> Result<Self> {
        let stream = connect(target, token, registry)?;
        Ok(Self { target, token, stream, received: Vec::with_capacity(READ), since: None })
    }

    /// Replaces a connection that cannot be used any more.
    pub(crate) fn reopen(&mut self, registry: &Registry) -> Result<()> {
        self.stream = connect(self.target, self.token, registry)?;
        self.received.clear();
        self.since = None;
        Ok(())
    }

    /// Sends a request whose latency counts from `since`.
    pub(crate) fn send(&mut self, request: &[u8], since: Instant) -> Result<(), String> {
        self.since = Some(since);
        match self.stream.write(request) {
            Ok(sent) if sent == request.len() => Ok(()),
            // No other request is in flight on this connection, so its buffer is empty.
            Ok(sent) => Err(format!("only {sent} bytes of a request could be sent")),
            Err(error) => Err(format!("a request could not be sent: {error}")),
        }
    }

    /// Reads the available bytes. `closed` is whether the server has closed its side.
    pub(crate) fn receive(&mut self, closed: bool) -> Received {
        loop {
            let before = self.received.len();
            self.received.resize(before + READ, 0);
            let read = self.stream.read(&mut self.received[before..]);
            self.received.truncate(before + *read.as_ref().unwrap_or(&0));
            match read {
                // A complete response counts; the close is detected when the next request is sent.
                Ok(0) if !self.received.is_empty() && self.whole() => break,
                Ok(0) => return Received::Broken("the connection was closed".to_owned()),
                // A short read has emptied the socket: epoll reports later bytes, but a close only once.
                Ok(read) if read < READ && !closed => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Received::Broken(format!("the connection failed: {error}")),
            }
        }
        if self.received.is_empty() {
            return Received::Nothing;
        }
        let head = match Head::read(&self.received) {
            Ok(Some(head)) if self.received.len() >= head.total() => head,
            Ok(_) => return Received::Nothing,
            Err(error) => return Received::Broken(format!("{error:#}")),
        };
        if self.since.is_none() || self.received.len() > head.total() {
            return Received::Broken("a response without a request".to_owned());
        }
        let result = match message::status(&self.received) {
            Some(200) => Received::Response { closes: head.closes },
            _ => Received::Broken(format!("unexpected response: {}", String::from_utf8_lossy(&self.received))),
        };
        self.received.clear();
        result
    }
}

impl Connection {
    fn whole(&self) -> bool {
        Head::read(&self.received).is_ok_and(|head| head.is_some_and(|head| self.received.len() >= head.total()))
    }
}

fn connect(target: SocketAddr, token: Token, registry: &Registry) -> Result<TcpStream> {
    // Blocking, since it takes no time on loopback and errors are returned here.
    let stream = std::net::TcpStream::connect(target).with_context(|| format!("cannot connect to {target}"))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    registry.register(&mut stream, token, Interest::READABLE)?;
    Ok(stream)
}
