//! One kept-alive connection of a client, with at most one request under way.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::SocketAddr,
    time::Instant,
};

use anyhow::{Context as _, Result};
use mio::{Interest, Registry, Token, net::TcpStream};

use crate::message::{self, Head};

/// Read at once; more than any answer that is expected here.
const READ: usize = 16 * 1024;

/// A connection to what is measured.
#[derive(Debug)]
pub(crate) struct Connection {
    target: SocketAddr,
    token: Token,
    stream: TcpStream,
    received: Vec<u8>,
    /// When the request that is under way was sent, or should have been.
    pub(crate) since: Option<Instant>,
}

/// What the socket had to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Not a whole answer yet.
    Nothing,
    /// A whole answer with 200, and whether the other side closes now.
    Answer { closes: bool },
    /// Anything else; the connection is of no more use.
    Broken(String),
}

impl Connection {
    pub(crate) fn open(target: SocketAddr, token: Token, registry: &Registry) -> Result<Self> {
        let stream = connect(target, token, registry)?;
        Ok(Self { target, token, stream, received: Vec::with_capacity(READ), since: None })
    }

    /// Takes the place of a connection that is of no more use.
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
            // Nothing else is on its way on this connection, so its buffer is empty.
            Ok(sent) => Err(format!("only {sent} bytes of a request could be sent")),
            Err(error) => Err(format!("a request could not be sent: {error}")),
        }
    }

    /// Reads what has come. `closed` says that the last byte has.
    pub(crate) fn hear(&mut self, closed: bool) -> Heard {
        loop {
            let before = self.received.len();
            self.received.resize(before + READ, 0);
            let read = self.stream.read(&mut self.received[before..]);
            self.received.truncate(before + *read.as_ref().unwrap_or(&0));
            match read {
                // An answer that is whole counts; the close shows when the next request is sent.
                Ok(0) if !self.received.is_empty() && self.whole() => break,
                Ok(0) => return Heard::Broken("the connection was closed".to_owned()),
                // A short read has emptied the socket: epoll tells of what comes later, though not twice of an end.
                Ok(read) if read < READ && !closed => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Heard::Broken(format!("the connection broke: {error}")),
            }
        }
        if self.received.is_empty() {
            return Heard::Nothing;
        }
        let head = match Head::read(&self.received) {
            Ok(Some(head)) if self.received.len() >= head.total() => head,
            Ok(_) => return Heard::Nothing,
            Err(error) => return Heard::Broken(format!("{error:#}")),
        };
        if self.since.is_none() || self.received.len() > head.total() {
            return Heard::Broken("an answer to nothing".to_owned());
        }
        let heard = match message::status(&self.received) {
            Some(200) => Heard::Answer { closes: head.closes },
            _ => Heard::Broken(format!("answered: {}", String::from_utf8_lossy(&self.received))),
        };
        self.received.clear();
        heard
    }
}

impl Connection {
    fn whole(&self) -> bool {
        Head::read(&self.received).is_ok_and(|head| head.is_some_and(|head| self.received.len() >= head.total()))
    }
}

fn connect(target: SocketAddr, token: Token, registry: &Registry) -> Result<TcpStream> {
    // Blocking: on loopback it takes no time, and a refusal is told where it happens.
    let stream = std::net::TcpStream::connect(target).with_context(|| format!("cannot connect to {target}"))?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    registry.register(&mut stream, token, Interest::READABLE)?;
    Ok(stream)
}
