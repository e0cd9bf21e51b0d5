//! Noticing that a client has left while its request is being answered.
//!
//! A client that has closed its side of an HTTP/1 connection may still listen (a half-close), or be gone; TCP tells the two
//! apart only when something is sent to it, which a client that is gone answers with a reset. While a request waits for its
//! answer, an interim `100 Continue` is what can be sent without harm: every client of HTTP/1.1 has to skip it. A client of
//! HTTP/1.0 cannot be asked, and is believed to listen. Once the answer has begun, its own bytes do the asking.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
    time::sleep,
};

use super::socket::Written;
use crate::downstream::HeadVerdict;

/// Watches one connection.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) stream: Arc<TcpStream>,
    pub(super) shared: Arc<HeadVerdict>,
    pub(super) written: Arc<Written>,
    /// The client speaks TLS.
    pub(super) secure: bool,
}

/// How often a connection is looked at whose client has closed its side.
const LOOK: Duration = Duration::from_secs(1);

/// So many looks without a byte written, in the middle of an answer, are taken for a client that is gone. A stream that is
/// silent for longer loses a client that only half-closed, and would keep its function awake for one that left.
const SILENT_LOOKS: u32 = 5;

const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Departure {
    /// Completes when the client has left. Costs nothing while it has not closed its side. Cancel-safe.
    pub(super) async fn noticed(&self) {
        if !self.closed_its_side().await || self.shared.is_http2() {
            // HTTP/2 reads all the time, sees the end itself, and knows no half-close.
            return std::future::pending().await;
        }
        if self.secure {
            // Who only has no more to say says so by TLS, and keeps the connection. Nothing could be sent beside TLS, either.
            return;
        }
        let (mut asked, mut before, mut silent) = (false, self.written.bytes(), 0);
        loop {
            let waiting = self.shared.is_waiting();
            if !waiting {
                asked = false;
            } else if !asked && !self.written.is_blocked() && !self.shared.is_http_10() {
                asked = true;
                // An error shows on the socket as well.
                if self.stream.try_write(INTERIM).is_ok_and(|count| count < INTERIM.len()) {
                    // It reads so little that what was sent is cut; nothing after that could be understood.
                    return;
                }
            }
            tokio::select! {
                // A reset.
                _ = self.stream.ready(Interest::ERROR) => return,
                () = sleep(LOOK) => {}
            }
            let now = self.written.bytes();
            // What the client is slow to take is under way, and the system itself asks for it.
            silent = if waiting || now != before || self.written.is_blocked() { 0 } else { silent + 1 };
            before = now;
            if silent >= SILENT_LOOKS {
                return;
            }
        }
    }

    async fn closed_its_side(&self) -> bool {
        // PRIORITY stands for urgent data or a closed read side, and unlike READABLE not for unread bytes. Urgent data is
        // nothing that HTTP has a use for; its readiness stays, so that nothing more can be learnt here.
        self.stream.ready(Interest::PRIORITY).await.is_ok_and(Ready::is_read_closed)
    }
}
