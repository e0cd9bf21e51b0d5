//! Readiness checks over a new connection to a pod: an HTTP GET, or the gRPC health check.

use http::{Request, Response, header};
use http_body_util::Empty;
use hyper::{
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rouse_crds::function::Protocol;
use tokio::net::TcpStream;

use super::{endpoint::Endpoint, grpc_health};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Whether an HTTP GET succeeds as the kubelet defines it: 2xx or 3xx.
pub(super) async fn http(stream: TcpStream, endpoint: &Endpoint, path: &str) -> Result<bool, Error> {
    let host = endpoint.address.to_string();
    let request = |uri: String| {
        Request::get(uri)
            .header(header::HOST, &host)
            .header(header::USER_AGENT, "rouse-probe")
            .body(Empty::<Bytes>::new())
    };
    let io = TokioIo::new(stream);
    let good =
        async |response: Response<Incoming>| response.status().is_success() || response.status().is_redirection();
    match endpoint.protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = http1::handshake(io).await?;
            read(sender.send_request(request(path.to_owned())?), connection, good).await
        }
        Protocol::H2c => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            read(sender.send_request(request(format!("http://{host}{path}"))?), connection, good).await
        }
    }
}

/// Whether the gRPC health check of a service returns `SERVING`.
pub(super) async fn grpc(stream: TcpStream, endpoint: &Endpoint, service: &str) -> Result<bool, Error> {
    let request = grpc_health::request(&endpoint.address.to_string(), service)?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    read(sender.send_request(request), connection, grpc_health::is_serving).await
}

/// Returns what `judge` makes of the response. The connection is driven here and not in its own task, so that it ends
/// with the probe.
async fn read<R: Future<Output = bool>>(
    response: impl Future<Output = hyper::Result<Response<Incoming>>>,
    connection: impl Future<Output = hyper::Result<()>>,
    judge: impl FnOnce(Response<Incoming>) -> R,
) -> Result<bool, Error> {
    let judged = async { Ok(judge(response.await?).await) };
    let mut judged = std::pin::pin!(judged);
    tokio::select! {
        biased;
        judged = &mut judged => judged,
        // Many servers respond and close at once; the end of the connection is then seen together with the response.
        _ = connection => judged.await,
    }
}
