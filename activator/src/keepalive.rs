//! Noticing that the other end of a connection is gone without a word.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// How long a connection may be silent before the other end is asked whether it is there, how often then, and how many
/// times: a node or a client that vanished is noticed after a minute. Its requests would else count as being in a pod for
/// ever, and keep it.
const AFTER: Duration = Duration::from_secs(30);
const EVERY: Duration = Duration::from_secs(10);
const TIMES: u32 = 3;

/// Has the system ask a silent other end whether it is still there.
///
/// # Errors
///
/// If the system does not let the socket be set, as when the connection is over.
pub fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(AFTER).with_interval(EVERY).with_retries(TIMES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_set() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        keep_alive(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), AFTER);
    }
}
