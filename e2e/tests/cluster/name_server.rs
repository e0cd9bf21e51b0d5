//! A DNS server that resolves every name to one address, for clients that accept only a name server.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use tokio::{net::UdpSocket, task::JoinHandle};

/// Length of a DNS message's header.
const HEADER: usize = 12;
/// Types of records.
const A: u16 = 1;
const AAAA: u16 = 28;

/// A DNS server on loopback. Stops when it is dropped.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl NameServer {
    pub(crate) async fn start(answer: IpAddr) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0").await?;
        let address = socket.local_addr()?;
        let task = tokio::spawn(async move {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query).await {
                if let Some(reply) = reply(&query[..length], answer) {
                    socket.send_to(&reply, from).await.ok();
                }
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the reply to a query: the address for its record type, and no record for any other.
fn reply(query: &[u8], answer: IpAddr) -> Option<Vec<u8>> {
    let labels = query.get(HEADER..)?;
    let name = labels.iter().position(|b| *b == 0)? + 1;
    let question = labels.get(..name + 4)?;
    let asked = u16::from_be_bytes([question[name], question[name + 1]]);
    let (kind, data) = match answer {
        IpAddr::V4(ip) => (A, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AAAA, ip.octets().to_vec()),
    };
    let found = asked == kind;
    // The id of the query; flags of a reply with recursion; one question and at most one answer.
    let mut reply = vec![query[0], query[1], 0x81, 0x80, 0, 1, 0, u8::from(found), 0, 0, 0, 0];
    reply.extend_from_slice(question);
    if found {
        // A pointer to the name in the question; class IN; TTL 60 s.
        reply.extend_from_slice(&[0xc0, 12]);
        reply.extend_from_slice(&kind.to_be_bytes());
        reply.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        reply.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        reply.extend_from_slice(&data);
    }
    Some(reply)
}
