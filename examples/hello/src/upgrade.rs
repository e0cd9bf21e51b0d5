//! `Upgrade: echo`: a connection that sends every byte back.

use std::sync::Arc;

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

use crate::{
    bodies::{Answer, whole},
    stats::InFlight,
};

/// Whether the request asks for the protocol `echo`.
fn asked_for_echo(request: &Request<Incoming>) -> bool {
    request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"echo"))
}

/// Answers 101 and echoes on the connection until the client has sent its last byte, or 426 where no upgrade was asked
/// for. The request stays in flight as long as the tunnel.
pub(crate) fn upgrade(request: Request<Incoming>, tunnels: &TaskTracker, in_flight: Arc<InFlight>) -> Response<Answer> {
    let echo = HeaderValue::from_static("echo");
    let mut response = Response::new(whole(""));
    if !asked_for_echo(&request) {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        response.headers_mut().insert(UPGRADE, echo);
        return response;
    }
    tunnels.spawn(async move {
        let _in_flight = in_flight;
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => {
                let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
                let copied = async {
                    tokio::io::copy(&mut reader, &mut writer).await?;
                    tokio::io::AsyncWriteExt::shutdown(&mut writer).await
                };
                if let Err(error) = copied.await {
                    eprintln!("The tunnel broke: {error}");
                }
            }
            Err(error) => eprintln!("The upgrade failed: {error}"),
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, echo);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
}
