//! Disconnect watcher: detects a client that disconnects while its request is being served.
//!
//! A client that has closed its side of an HTTP/1 connection may still read (a half-close), or be gone. TCP tells the
//! two apart only when something is sent, which a client that is gone answers with a reset. While a request waits for
//! its response, an interim `100 Continue` can be sent without harm: every HTTP/1.1 client has to skip it. An HTTP/1.0
//! client cannot be tested, and is assumed to read. Once the response has begun, its own bytes are the test.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{Interest, Ready},
    net::TcpStream,
    time::sleep,
};

use super::send_timeout::WriteProgress;
use crate::downstream::ConnectionState;

/// Watches one connection.
#[derive(Debug)]
pub(super) struct DisconnectWatcher {
    pub(super) stream: Arc<TcpStream>,
    pub(super) shared: Arc<ConnectionState>,
    pub(super) written: Arc<WriteProgress>,
    /// The connection uses TLS.
    pub(super) secure: bool,
}

/// How often a connection is checked whose client has closed its side.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Checks without a byte written, in the middle of a response, after which the client counts as gone. A stream that is
/// idle for longer loses a client that only half-closed; otherwise one that disconnected would keep the function awake.
const MAX_IDLE_CHECKS: u32 = 5;

const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl DisconnectWatcher {
    /// Completes when the client has disconnected. Costs nothing while the client has not closed its side. Cancel-safe.
    pub(super) async fn disconnected(&self) {
        if !self.read_closed().await || self.shared.is_http2() {
            // HTTP/2 reads all the time, detects the end itself, and has no half-close.
            return std::future::pending().await;
        }
        if self.secure {
            // A TLS client that only half-closes sends close_notify and keeps the connection. Nothing could be sent
            // beside TLS either.
            return;
        }
        let (mut asked, mut before, mut silent) = (false, self.written.bytes(), 0);
        loop {
            let waiting = self.shared.is_awaiting_response();
            if !waiting {
                asked = false;
            } else if !asked && !self.written.is_blocked() && !self.shared.is_http_10() {
                asked = true;
                // An error shows on the socket as well.
                if self.stream.try_write(INTERIM).is_ok_and(|count| count < INTERIM.len()) {
                    // The client reads so little that the interim response was cut; nothing after that could be parsed.
                    return;
                }
            }
            tokio::select! {
                // A reset.
                _ = self.stream.ready(Interest::ERROR) => return,
                () = sleep(CHECK_INTERVAL) => {}
            }
            let now = self.written.bytes();
            // A slow reader is not idle, and the kernel itself probes it.
            silent = if waiting || now != before || self.written.is_blocked() { 0 } else { silent + 1 };
            before = now;
            if silent >= MAX_IDLE_CHECKS {
                return;
            }
        }
    }

    async fn read_closed(&self) -> bool {
        // Unlike READABLE, PRIORITY is not set for unread bytes. Nor is it for urgent data here: a TcpStream does not ask
        // the kernel for that event, and only a closed read side remains.
        self.stream.ready(Interest::PRIORITY).await.is_ok_and(Ready::is_read_closed)
    }
}
