//! Server of the admin endpoints: few connections, small heads, short waits.
//!
//! The endpoints answer the kubelet's probes, so a client that opens many connections must not keep others out: the
//! oldest connection is closed for a new one, except those of demand readers, which have a bound of their own.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    keepalive::keep_alive,
    resources::{Spare, is_exhausted},
};

/// The client of a request, as an extension.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// Set while the connection must not be closed for another one.
    pub(super) pinned: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Connection {
    client: IpAddr,
    pinned: Arc<AtomicBool>,
    task: AbortOnDropHandle<()>,
}

/// Connections at once, and of one client, without pinned ones.
const MOST: usize = 64;
const MOST_OF_CLIENT: usize = 16;
/// Time for a head, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time after which a client that does not read its response is closed.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 50;
/// Descriptors that are closed to accept when there is no other: several probes at once.
const SPARE: usize = 16;
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// Serves until it is dropped, which ends all connections.
pub(super) async fn serve(socket: TcpListener, router: Router) {
    let mut spare = Spare::new(SPARE);
    let mut connections: Vec<Connection> = vec![];
    loop {
        match socket.accept().await {
            Ok((stream, address)) => {
                connections.retain(|connection| !connection.task.is_finished());
                spare.refill();
                let client = address.ip().to_canonical();
                make_room(&mut connections, client);
                connections.push(open(stream, client, router.clone()));
            }
            Err(error) if is_exhausted(&error) && spare.release() => {}
            Err(error) => {
                tracing::warn!(%error, "Failed to accept a connection to the admin port");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                spare.refill();
            }
        }
    }
}

/// Closes the oldest connections for one more of this client.
fn make_room(connections: &mut Vec<Connection>, client: IpAddr) {
    let unpinned = |connection: &Connection| !connection.pinned.load(Ordering::Relaxed);
    let count = |connections: &[Connection], of: Option<IpAddr>| {
        connections.iter().filter(|c| unpinned(c) && of.is_none_or(|of| c.client == of)).count()
    };
    for (of, most) in [(Some(client), MOST_OF_CLIENT), (None, MOST)] {
        while count(connections, of) >= most
            && let Some(oldest) = connections.iter().position(|c| unpinned(c) && of.is_none_or(|of| c.client == of))
        {
            connections.remove(oldest);
        }
    }
}

fn open(stream: TcpStream, address: IpAddr, router: Router) -> Connection {
    let pinned = Arc::<AtomicBool>::default();
    let client = Client { address, pinned: pinned.clone() };
    let task = AbortOnDropHandle::new(tokio::spawn(async move {
        let options = stream.set_nodelay(true).and_then(|()| keep_alive(&stream));
        let options = options.and_then(|()| SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_TIMEOUT)));
        if let Err(error) = options {
            return tracing::debug!(%error, "Admin connection ended before its first request");
        }
        let inner = TowerToHyperService::new(router);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(client.clone());
            hyper::service::Service::call(&inner, request)
        });
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS);
        if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "Admin connection ended with an error");
        }
    }));
    Connection { client: address, pinned, task }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use super::*;

    async fn serving() -> (SocketAddr, AbortOnDropHandle<()>) {
        let socket = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let router = Router::new().route("/livez", get(async || "ok")).route(
            "/pin",
            get(async |axum::Extension(client): axum::Extension<Client>| {
                client.pinned.store(true, Ordering::Relaxed);
                "pinned"
            }),
        );
        (address, AbortOnDropHandle::new(tokio::spawn(serve(socket, router))))
    }

    async fn get_on(stream: &mut TcpStream, path: &str) -> String {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut buffer = [0; 1024];
        let count = timeout(Duration::from_secs(20), stream.read(&mut buffer)).await.unwrap().unwrap_or(0);
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    #[tokio::test]
    async fn many_connections_keep_nobody_out() {
        let (address, _server) = serving().await;
        let mut pinned = TcpStream::connect(address).await.unwrap();
        assert!(get_on(&mut pinned, "/pin").await.ends_with("pinned"));
        let mut held = vec![];
        for _ in 0..3 * MOST {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        assert!(get_on(&mut probe, "/livez").await.ends_with("ok"));
        assert_eq!(get_on(&mut held[0], "/livez").await, "", "the oldest is closed");
        let last = held.len() - 1;
        assert!(get_on(&mut held[last], "/livez").await.ends_with("ok"), "the newest stay");
        assert!(get_on(&mut pinned, "/livez").await.ends_with("ok"), "a reader stays");
    }

    #[tokio::test]
    async fn a_large_head_is_rejected() {
        let (address, _server) = serving().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET /livez HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2 * MAX_HEAD));
        // The server may close before it has read all of it.
        drop(stream.write_all(head.as_bytes()).await);
        let mut text = vec![];
        drop(timeout(Duration::from_secs(20), stream.read_to_end(&mut text)).await.unwrap());
        assert!(!String::from_utf8_lossy(&text).contains(" 200 "));
    }
}
