//! Sending a request to its pod, and waiting for the head of the answer.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, header};
use http_body::Body as _;
use hyper::body::Incoming;
use rouse_crds::function::Protocol;
use tokio::time::{Instant, sleep_until};

use super::{RequestBody, body::Progress, headers};
use crate::{
    admit::{Lease, Policy},
    endpoints::{Connection, Dialer, Sent},
};

/// What became of a request that was given to a pod.
pub(super) enum Forwarded {
    /// The pod answers.
    Answered(Response<Incoming>, Connection, Lease),
    /// The pod cannot be connected to; not a byte was sent.
    Unsent(Box<Request<RequestBody>>, Lease, String),
    /// It may have been sent, and there is no answer.
    Broken(String),
    /// The head of the answer did not come in time.
    Late,
    /// The client broke off its request.
    ClientLeft,
}

/// Sends a request to the pod of its lease. A connection that turns out to be closed before anything was written is
/// replaced; what may have been seen by the pod is never sent again.
pub(super) async fn forward(
    mut lease: Lease,
    request: Request<RequestBody>,
    dialer: &Dialer,
    policy: &Policy,
    progress: Option<&Arc<Progress>>,
) -> Forwarded {
    let endpoint = lease.endpoint().clone();
    let (mut parts, body) = request.into_parts();
    headers::target(&mut parts, endpoint.protocol);
    // hyper takes a GET or HEAD of unknown length for one without a body, and would leave it out.
    if endpoint.protocol == Protocol::Http1
        && matches!(parts.method, Method::GET | Method::HEAD)
        && !body.is_end_stream()
        && !parts.headers.contains_key(header::CONTENT_LENGTH)
    {
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut request = Box::new(Request::from_parts(parts, body));
    loop {
        let mut connection = match endpoint.connection(dialer).await {
            Ok(connection) => connection,
            Err(error) => return Forwarded::Unsent(request, lease, error.to_string()),
        };
        let reused = connection.reused;
        let Some(sent) = in_time(connection.send(*request), policy, progress).await else { return Forwarded::Late };
        match sent {
            Sent::Answered(response) => {
                lease.answered();
                return Forwarded::Answered(response, connection, lease);
            }
            // The pool has so many idle connections and no more, so this ends with a new one.
            Sent::Unsent(unsent, error) => {
                tracing::debug!(%error, "A connection to a pod was closed before it was used");
                if !reused {
                    return Forwarded::Unsent(unsent, lease, error.to_string());
                }
                request = unsent;
            }
            Sent::Broken(error) if error.is_user() => return Forwarded::ClientLeft,
            Sent::Broken(error) => return Forwarded::Broken(error.to_string()),
        }
    }
}

/// Waits for the head as long as the Function allows, counted from the last byte of the request.
async fn in_time(
    sending: impl Future<Output = Sent>,
    policy: &Policy,
    progress: Option<&Arc<Progress>>,
) -> Option<Sent> {
    let mut sending = std::pin::pin!(sending);
    let limit = policy.idle.map_or(policy.response, |idle| idle.min(policy.response));
    let mut until = Instant::now() + limit;
    loop {
        tokio::select! {
            biased;
            sent = &mut sending => return Some(sent),
            () = sleep_until(until) => {
                let moved = progress.map(|p| p.last() + limit).filter(|moved| *moved > Instant::now());
                until = moved?;
            }
        }
    }
}
