//! TCP keepalive: detects a peer that vanished.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Idle time before the first TCP keepalive probe, interval of probes, and their number: a node or client that vanished
/// is detected after a minute. Otherwise its requests would count as in flight for ever, and keep their pod.
const AFTER: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_secs(10);
const TIMES: u32 = 3;

/// Enables TCP keepalive.
///
/// # Errors
///
/// If the socket option cannot be set, as when the connection has ended.
pub fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(AFTER).with_interval(EVERY).with_retries(TIMES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keepalive_is_set() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        keep_alive(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), AFTER);
    }
}
