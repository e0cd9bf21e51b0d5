//! Sending a request to its pod, and waiting for the head of the answer.

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
    admit::{Lease, Policy},
    body::{Progress, RequestBody},
    downstream::Alarm,
    endpoints::{Connection, Dialer, Sent},
};

/// What became of a request that was given to a pod.
pub(super) enum Forwarded {
    /// The pod answers.
    Answered(Response<Incoming>, Connection, Lease),
    /// The pod cannot be connected to; not a byte was sent, and the request is where it was.
    Unsent(Lease, String),
    /// It may have been sent, and there is no answer.
    Broken(String),
    /// The head of the answer did not come in time.
    Late,
    /// The client broke off its request.
    ClientLeft,
}

/// Sends a request to the pod of its lease, taking it out of `request`.
///
/// A connection that turns out to be closed before anything was written is replaced. What may have been seen by the pod is
/// sent again only if it has no body, its method says that twice is as good as once, and the connection had been idle before:
/// most likely the pod closed it in that very moment. Then it goes once more, on a new connection.
pub(super) async fn forward(
    mut lease: Lease,
    request: &mut Option<Request<RequestBody>>,
    dialer: &Dialer,
    policy: &Policy,
    progress: Option<&Arc<Progress>>,
    alarm: &Alarm,
) -> Forwarded {
    let endpoint = lease.endpoint().clone();
    if let Some(request) = request {
        headers::target(request, endpoint.protocol);
        // hyper takes a GET or HEAD of unknown length for one without a body, and would leave it out.
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
            // In a box, as it is rare and would make every request's state larger.
            None => match Box::pin(endpoint.connect(dialer)).await {
                Ok(connection) => connection,
                Err(error) => return Forwarded::Unsent(lease, error.to_string()),
            },
        };
        let Some(sent) = request.take() else { return Forwarded::Broken("the request was sent already".to_owned()) };
        let again = if connection.reused { replay(&sent) } else { None };
        let sending = pin!(connection.send(sent));
        let Some(sent) = in_time(sending, policy, progress, alarm).await else {
            // What a client has not sent, no pod can answer.
            if progress.is_none_or(|progress| progress.is_whole()) {
                lease.fail();
            }
            return Forwarded::Late;
        };
        match sent {
            Sent::Answered(response) => {
                lease.answered();
                return Forwarded::Answered(response, connection, lease);
            }
            // The pool has so many idle connections and no more, so this ends with a new one.
            Sent::Unsent(unsent, error) => {
                tracing::debug!(%error, "A connection to a pod was closed before it was used");
                *request = Some(*unsent);
                if !connection.reused {
                    return Forwarded::Unsent(lease, error.to_string());
                }
            }
            Sent::Broken(error) if error.is_user() => return Forwarded::ClientLeft,
            Sent::Broken(error) => match again {
                // What the pod said was no answer: it did not just close.
                Some(again) if !error.is_parse() => {
                    tracing::debug!(%error, "A connection to a pod was closed in the moment in which it was used");
                    replayed = true;
                    *request = Some(*again);
                }
                _ => {
                    lease.fail();
                    return Forwarded::Broken(error.to_string());
                }
            },
        }
    }
}

/// The same request again, if sending it twice does no harm (RFC 9110, section 9.2.2).
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

/// Waits for the head as long as the Function allows, counted from the last byte of the request.
async fn in_time(
    sending: Pin<&mut impl Future<Output = Sent>>,
    policy: &Policy,
    progress: Option<&Arc<Progress>>,
    alarm: &Alarm,
) -> Option<Sent> {
    let limit = policy.idle.map_or(policy.response, |idle| idle.min(policy.response));
    let began = Instant::now();
    alarm.limit(sending, || progress.map_or(began, |p| p.last().max(began)) + limit).await
}
