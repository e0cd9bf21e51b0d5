//! Refusal of a connection: a response without reading a request, and the close.

use std::{io::Write as _, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::problem::{Format, Kind, Problem};

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The process has little memory left.
    Memory,
    /// The client has too many connections.
    Client,
    /// No file descriptor is left.
    Descriptors,
}

/// Refused connections that are still read for a moment, so that their client sees the response: a connection that is
/// closed with unread bytes is reset.
const LINGERING: usize = 32;
const LINGER: Duration = Duration::from_secs(1);
/// Memory and slots are freed within seconds.
const RETRY_AFTER: Duration = Duration::from_secs(2);

impl Refusal {
    /// Returns the value of the metric label `reason`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Client => "client",
            Self::Descriptors => "descriptors",
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Self::Memory => "the activator has too little memory left for new connections",
            Self::Client => "this client has too many connections",
            Self::Descriptors => "the activator has no file descriptor left for new connections",
        }
    }

    /// Returns the response to whatever the client sends.
    fn response(self) -> Vec<u8> {
        let response =
            Problem::new(Kind::Overloaded, self.detail()).retry_after(RETRY_AFTER).response(Format::Json, None, "");
        let (head, body) = response.into_parts();
        let mut bytes = Vec::with_capacity(512);
        // Writing to a vector cannot fail.
        drop(write!(bytes, "HTTP/1.1 {}\r\n", head.status));
        for (name, value) in &head.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        drop(write!(bytes, "connection: close\r\ncontent-length: {}\r\n\r\n", body.len()));
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// Refuses connections.
#[derive(Debug)]
pub(super) struct Refuser {
    responses: [Vec<u8>; 3],
    lingering: Arc<Semaphore>,
    /// A TLS client cannot read a response without a handshake.
    tls: bool,
}

impl Refuser {
    pub(super) fn new(tls: bool) -> Self {
        let responses = [Refusal::Memory, Refusal::Client, Refusal::Descriptors].map(Refusal::response);
        Self { responses, lingering: Arc::new(Semaphore::new(LINGERING)), tls }
    }

    /// Sends the response and closes the connection.
    pub(super) fn refuse(&self, stream: TcpStream, refusal: Refusal) {
        if self.tls {
            return;
        }
        // A new connection has space for a few hundred bytes; one that has not is closed without them.
        if stream.try_write(&self.responses[refusal as usize]).is_err() {
            return;
        }
        if let (Ok(permit), true) = (self.lingering.clone().try_acquire_owned(), refusal != Refusal::Descriptors) {
            tokio::spawn(linger(stream, permit));
        } else {
            // What has arrived is read at least.
            drop(stream.try_read(&mut [0; 4 << 10]));
        }
    }
}

/// Reads until the client has closed, for a limited time.
async fn linger(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let read = async {
        stream.shutdown().await?;
        let mut nowhere = [0; 1 << 10];
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut nowhere) {
                Ok(0) => break,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    };
    // The client has got its response, or not: there is nothing else to do for it.
    drop(timeout(LINGER, read).await);
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_client_that_has_sent_its_request_reads_the_response() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let refuser = Refuser::new(false);
        for refusal in [Refusal::Memory, Refusal::Client, Refusal::Descriptors] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            stream.readable().await.unwrap();
            refuser.refuse(stream, refusal);
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
            for part in ["\r\nretry-after: 2\r\n", "\r\nconnection: close\r\n", "problems/overloaded", refusal.detail()]
            {
                assert!(text.contains(part), "{part} is not in {text}");
            }
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        }
    }
}
