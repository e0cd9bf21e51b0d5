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

use super::headers;
use crate::{
    admit::{Permit, Policy},
    body::{Progress, RequestBody},
    downstream::ConnectionTimer,
    endpoints::{Connection, Dialer, Sent},
};

/// Result of forwarding.
pub(super) enum Forwarded {
    /// The pod responded.
    Response(Response<Incoming>, Connection, Permit),
    /// The connect failed, and the request is still in place.
    ConnectFailed(Permit, String),
    /// The request may have been sent, and there is no response.
    Broken(String),
    /// The head of the response did not arrive in time.
    TimedOut,
    /// The client aborted its request.
    ClientAborted,
}

/// Sends a request to the pod of its permit, taking it out of `request`.
///
/// A connection that turns out to be closed before anything was written is replaced. A request that the pod may have
/// received is sent again only if it has no body, its method is idempotent, and the connection was reused: most likely
/// the pod closed it at that very moment. It is replayed once, on a new connection.
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
        let pooled = if replayed { None } else { endpoint.pooled() };
        let mut connection = match pooled {
            Some(connection) => connection,
            // Boxed, as it is rare and would make the state of every request larger.
            None => match Box::pin(endpoint.connect(dialer)).await {
                Ok(connection) => connection,
                Err(error) => return Forwarded::ConnectFailed(permit, error.to_string()),
            },
        };
        let Some(sent) = request.take() else { return Forwarded::Broken("the request was already sent".to_owned()) };
        let again = if connection.reused { replay(&sent) } else { None };
        let sending = pin!(connection.send(sent));
        let Some(sent) = within_timeout(sending, policy, progress, timer).await else {
            // A pod cannot respond to a request that the client has not finished.
            if progress.is_none_or(|progress| progress.is_whole()) {
                permit.record_failure();
            }
            return Forwarded::TimedOut;
        };
        match sent {
            Sent::Response(response) => {
                permit.mark_responded();
                return Forwarded::Response(response, connection, permit);
            }
            // The number of idle connections is bounded, so the loop ends with a new one.
            Sent::Unsent(unsent, error) => {
                tracing::debug!(%error, "Pooled connection was closed before use");
                *request = Some(*unsent);
                if !connection.reused {
                    return Forwarded::ConnectFailed(permit, error.to_string());
                }
            }
            Sent::Broken(error) if error.is_user() => return Forwarded::ClientAborted,
            Sent::Broken(error) => match again {
                // The pod sent an invalid response: it did not just close.
                Some(again) if !error.is_parse() => {
                    tracing::debug!(%error, "Pod closed a reused connection; replaying the request");
                    replayed = true;
                    *request = Some(*again);
                }
                _ => {
                    permit.record_failure();
                    return Forwarded::Broken(error.to_string());
                }
            },
        }
    }
}

/// Returns a copy of the request, if it can be replayed (RFC 9110, section 9.2.2).
fn replay(request: &Request<RequestBody>) -> Option<Box<Request<RequestBody>>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Box::new(Request::new(RequestBody::none()));
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    again.headers_mut().clone_from(request.headers());
    Some(again)
}

/// Waits for the head as long as the Function's timeouts allow, counted from the last byte of the request.
async fn within_timeout(
    sending: Pin<&mut impl Future<Output = Sent>>,
    policy: &Policy,
    progress: Option<&Arc<Progress>>,
    timer: &ConnectionTimer,
) -> Option<Sent> {
    let limit = policy.idle.map_or(policy.response, |idle| idle.min(policy.response));
    let began = Instant::now();
    timer.run_until(sending, || progress.map_or(began, |p| p.last().max(began)) + limit).await
}
