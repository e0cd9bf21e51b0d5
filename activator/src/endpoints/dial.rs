//! Dialer: connects to pods, and to no address that cannot be a pod's.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use crate::keepalive::keep_alive;

/// Connect timeout of a request. Long enough for a lost SYN to be sent again.
pub(super) const CONNECT: Duration = Duration::from_secs(3);

/// Connects to pods.
#[derive(Clone, Copy, Debug)]
pub struct Dialer {
    allow_local: bool,
}

/// Why a connect failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address cannot be a pod's: loopback, link-local (cloud metadata), multicast or unspecified.
    #[error("{0} is not a valid pod address")]
    Forbidden(IpAddr),
    /// The connect timed out.
    #[error("connect timed out after {0:?}")]
    TimedOut(Duration),
    /// HTTP/2: the pod accepted the connection, and announced no settings.
    #[error("no HTTP/2 settings within {0:?}; the pod may not speak HTTP/2")]
    NoSettings(Duration),
    /// HTTP/2: all streams that the pod allows were in use. The pod is not unreachable.
    #[error("no free HTTP/2 stream within {0:?}")]
    NoStream(Duration),
    /// The connect was refused, or the network failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Dialer {
    /// Creates a dialer. `allow_local` allows loopback addresses, for tests whose pods are local servers.
    #[must_use]
    pub fn new(allow_local: bool) -> Self {
        Self { allow_local }
    }

    /// Whether an address may be connected to. A pod's status is written by its node: whoever can write it must not be
    /// able to point this process at the node's own services or at cloud metadata.
    #[must_use]
    pub fn allows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let local = ip.is_loopback();
        let link_local = match ip {
            IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        !(ip.is_unspecified() || ip.is_multicast() || link_local) && (!local || self.allow_local)
    }

    /// Connects within `limit`.
    ///
    /// # Errors
    ///
    /// If the address is forbidden, or the connect is refused or times out.
    pub async fn connect(&self, address: SocketAddr, limit: Duration) -> Result<TcpStream, DialError> {
        if !self.allows(address.ip()) {
            return Err(DialError::Forbidden(address.ip()));
        }
        let stream = timeout(limit, TcpStream::connect(address)).await.map_err(|_| DialError::TimedOut(limit))??;
        // Small writes are sent at once: a head, a chunk of a stream.
        stream.set_nodelay(true)?;
        keep_alive(&stream)?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("10.244.0.7", true)]
    #[case("fd00::7", true)]
    #[case("127.0.0.1", false)]
    #[case("::1", false)]
    #[case("::ffff:127.0.0.1", false)]
    #[case("169.254.169.254", false)]
    #[case("::ffff:169.254.169.254", false)]
    #[case("fe80::1", false)]
    #[case("0.0.0.0", false)]
    #[case("::", false)]
    #[case("224.0.0.1", false)]
    #[case("255.255.255.255", false)]
    fn only_pod_addresses_are_allowed(#[case] ip: &str, #[case] allowed: bool) {
        assert_eq!(Dialer::new(false).allows(ip.parse().unwrap()), allowed);
    }

    #[tokio::test]
    async fn a_forbidden_address_is_not_dialled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let refused = Dialer::new(false).connect(address, Duration::from_secs(5)).await;
        assert!(matches!(refused, Err(DialError::Forbidden(_))));
        assert!(Dialer::new(true).connect(address, Duration::from_secs(5)).await.is_ok());
    }
}
