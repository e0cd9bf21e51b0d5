//! `Upgrade: echo`: a connection that echoes every byte.

use std::sync::Arc;

use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

use crate::{
    bodies::{ResponseBody, whole},
    stats::InFlight,
};

/// Returns whether the request upgrades to the protocol `echo`.
fn is_echo_upgrade(request: &Request<Incoming>) -> bool {
    request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"echo"))
}

/// Responds with 101 and echoes until the client closes its side, or with 426 if the request is not an upgrade. The request
/// is in flight as long as the tunnel.
pub(crate) fn upgrade(
    request: Request<Incoming>,
    tunnels: &TaskTracker,
    in_flight: Arc<InFlight>,
) -> Response<ResponseBody> {
    let echo = HeaderValue::from_static("echo");
    let mut response = Response::new(whole(""));
    if !is_echo_upgrade(&request) {
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
                    eprintln!("Tunnel failed: {error}");
                }
            }
            Err(error) => eprintln!("Upgrade failed: {error}"),
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, echo);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
}
