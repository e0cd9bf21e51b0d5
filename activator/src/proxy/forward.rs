//! Forwarding: sends a request to its pod, and waits for the head of the response.

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use http::{HeaderValue, Method, Request, Response, header};
use http_body::Body as _;
use hyper::body::Incoming;
use rouse_crds::function::Protocol;
use tokio::time::Instant;

use super::{headers, in_pod::InPod};
use crate::{
    admit::{Permit, Policy},
    body::{Progress, RequestBody},
    downstream::ConnectionTimer,
    endpoints::{DialError, Dialer, Loss, Sent},
};

/// Result of forwarding.
pub(super) enum Forwarded {
    /// The pod responded.
    Response(Response<Incoming>, InPod),
    /// The connect failed before anything of the request was written, and the request is still in place.
    ConnectFailed(Permit, String),
    /// The pod allows no further HTTP/2 stream, and the request is still in place.
    NoStream(Permit),
    /// The request may have been sent, and there is no response.
    Broken(String),
    /// The head of the response did not arrive in time.
    TimedOut,
    /// The request body arrived below its minimum rate.
    ClientTooSlow,
    /// The client aborted its request.
    ClientAborted,
}

/// Sends a request to the pod of its permit, taking it out of `request`.
///
/// A connection that turns out to be closed before anything was written is replaced. A request that was written is sent
/// once more at most, to the same pod, and only if it has no body and the pod has not processed it:
///
/// - HTTP/1: the method is idempotent, the connection was reused, and the pod reset it without a response. The pod has
///   closed an idle connection while the request was on its way. Of a pod that crashed while it processed the request,
///   the kernel closes the connection without a reset.
/// - HTTP/2: the pod refused the stream, or sent a GOAWAY that excludes it.
///
/// A pod that is alive accepts another connection. If it does not, the request may be the reason, and is not sent to
/// another pod.
pub(super) async fn forward(
    mut permit: Permit,
    request: &mut Option<Request<RequestBody>>,
    dialer: &Dialer,
    policy: &Policy,
    progress: Option<&Arc<Progress>>,
    timer: &ConnectionTimer,
) -> Forwarded {
    let endpoint = permit.endpoint().clone();
    if let Some(request) = request {
        headers::target(request, endpoint.protocol);
        // hyper takes a GET or HEAD of unknown length for one without a body, and would drop it.
        if endpoint.protocol == Protocol::Http1
            && matches!(*request.method(), Method::GET | Method::HEAD)
            && !request.body().is_end_stream()
            && !request.headers().contains_key(header::CONTENT_LENGTH)
        {
            request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    let mut replayed = false;
    loop {
        let pooled = if replayed && endpoint.protocol == Protocol::Http1 { None } else { endpoint.pooled() };
        let mut connection = match pooled {
            Some(connection) => connection,
            // Boxed, as it is rare and would make the state of every request larger.
            None => match Box::pin(endpoint.connect(dialer)).await {
                Ok(connection) => connection,
                Err(error) if replayed => return lost_pod(permit, &error.to_string()),
                Err(DialError::NoStream(_)) => return Forwarded::NoStream(permit),
                Err(error) => return Forwarded::ConnectFailed(permit, error.to_string()),
            },
        };
        let Some(sent) = request.take() else { return Forwarded::Broken("the request was already sent".to_owned()) };
        // For HTTP/1 only what may be replayed is worth a copy.
        let again =
            (connection.reused && !replayed && (endpoint.protocol == Protocol::H2c || sent.method().is_idempotent()))
                .then(|| copy(&sent))
                .flatten();
        let reused = connection.reused;
        let sending = pin!(connection.send(sent));
        // Whoever drops this future, and the timeout, abort the request.
        let mut in_pod = InPod::new(connection, permit);
        let sent = within_timeout(sending, policy, progress, timer).await;
        let Some((mut connection, in_pod_permit)) = in_pod.take() else { return Forwarded::TimedOut };
        permit = in_pod_permit;
        match sent {
            None => {
                let too_slow = progress.is_some_and(|progress| progress.is_too_slow());
                // A pod cannot respond to a request that the client has not finished.
                if progress.is_none_or(|progress| progress.is_whole()) {
                    permit.record_failure();
                }
                drop(InPod::new(connection, permit));
                return if too_slow { Forwarded::ClientTooSlow } else { Forwarded::TimedOut };
            }
            Some(Sent::Response(response)) => {
                permit.mark_responded();
                connection.set_idle_limit(response.headers());
                return Forwarded::Response(response, InPod::new(connection, permit));
            }
            // The number of idle connections is bounded, so the loop ends with a new one.
            Some(Sent::Unsent(unsent, error)) => {
                tracing::debug!(%error, "Pooled connection was closed before use");
                *request = Some(*unsent);
                if !reused {
                    return if replayed { lost_pod(permit, &error) } else { Forwarded::ConnectFailed(permit, error) };
                }
            }
            // Over HTTP/2 it looks like a failure of the pod.
            Some(Sent::Lost(_)) if progress.is_some_and(|progress| progress.has_failed()) => {
                return Forwarded::ClientAborted;
            }
            Some(Sent::Lost(Loss::RequestBody(_))) => return Forwarded::ClientAborted,
            Some(Sent::Lost(Loss::Refused(error))) => match again {
                Some(again) => {
                    tracing::debug!(%error, "Pod refused a request; sending it once more");
                    *request = Some(again);
                    replayed = true;
                }
                None => {
                    permit.record_failure();
                    return Forwarded::Broken(error);
                }
            },
            Some(Sent::Lost(Loss::Unread(error))) => {
                permit.record_failure();
                match again {
                    Some(again) => {
                        tracing::debug!(%error, "Pod closed a reused connection; replaying the request");
                        *request = Some(again);
                        replayed = true;
                        // The loss counts as a failure of the revision, and so may the replay.
                        if policy.count_outcomes {
                            permit.mark_sent();
                        }
                    }
                    None => return Forwarded::Broken(error),
                }
            }
            Some(Sent::Lost(Loss::Other(error))) => {
                permit.record_failure();
                return Forwarded::Broken(error);
            }
        }
    }
}

/// Ends a request that may have crashed its pod.
fn lost_pod(mut permit: Permit, error: &str) -> Forwarded {
    permit.record_failure();
    permit.pod_unreachable();
    Forwarded::Broken(format!("the pod closed the connection without a response, and cannot be connected to: {error}"))
}

/// Returns a copy of the request, if it has no body.
fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(RequestBody::none());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    again.headers_mut().clone_from(request.headers());
    Some(again)
}

/// Waits for the head as long as the Function's timeouts allow, counted from the last byte of the request, and not for a
/// client that is too slow.
async fn within_timeout(
    sending: Pin<&mut impl Future<Output = Sent>>,
    policy: &Policy,
    progress: Option<&Arc<Progress>>,
    timer: &ConnectionTimer,
) -> Option<Sent> {
    let limit = policy.idle.map_or(policy.response, |idle| idle.min(policy.response));
    let began = Instant::now();
    let until = || {
        let Some(progress) = progress else { return began + limit };
        let until = progress.last().max(began) + limit;
        progress.too_slow_at().map_or(until, |at| until.min(at))
    };
    timer.run_until(sending, until).await
}
