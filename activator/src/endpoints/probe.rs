//! Finding out that a pod takes requests, before kubelet says so.
//!
//! From the moment a pod has an address it is tried every few milliseconds, one try at a time. A connection, or an answer to
//! the readiness check if there is one, admits it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use http::{Request, header};
use http_body_util::Empty;
use hyper::{
    body::Bytes,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rouse_crds::function::Protocol;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{DialError, Dialer, Endpoint};
use crate::{admit::Gate, unbroken};

/// Time between the first tries. It grows to [`SLOWEST`].
const FASTEST: Duration = Duration::from_millis(10);
const SLOWEST: Duration = Duration::from_millis(50);
/// Time between tries of a pod that has been tried for a minute.
const PATIENT: Duration = Duration::from_millis(500);
const PATIENT_AFTER: Duration = Duration::from_secs(60);
/// How long the first try may take. It doubles with each one that runs out of time, so that slow networks work.
const SHORTEST_LIMIT: Duration = Duration::from_millis(100);
const LONGEST_LIMIT: Duration = Duration::from_secs(2);
/// How long a readiness check may take once the connection is there.
const CHECK_LIMIT: Duration = Duration::from_secs(1);

/// Probes `endpoint` after `delay` until it is admitted or `stop` is cancelled.
pub(crate) fn spawn(gate: Weak<Gate>, endpoint: Arc<Endpoint>, delay: Duration, stop: CancellationToken) {
    let Some(metrics) = gate.upgrade().map(|gate| gate.context().metrics.clone()) else { return };
    // Its gate starts no second one as long as this one has not come to an end, so a defect must not end it.
    unbroken::spawn("probe", metrics, move || {
        let (gate, endpoint, stop) = (gate.clone(), endpoint.clone(), stop.clone());
        async move {
            // Every await inside is cancel-safe: a try that is given up closes its socket.
            let admitted = stop.run_until_cancelled(async {
                sleep(delay).await;
                until_it_answers(&gate, &endpoint).await
            });
            if admitted.await == Some(true)
                && let Some(gate) = gate.upgrade()
            {
                gate.admitted(&endpoint);
            }
        }
    });
}

async fn until_it_answers(gate: &Weak<Gate>, endpoint: &Endpoint) -> bool {
    let began = Instant::now();
    let (mut pause, mut limit) = (FASTEST, SHORTEST_LIMIT);
    loop {
        // Held for one try only, so that a probe does not keep the gate of a deleted function.
        let Some(context) = gate.upgrade().map(|gate| gate.context().clone()) else { return false };
        let Ok(turn) = context.probes.acquire().await else { return false };
        let tried = attempt(&context.dialer, endpoint, limit).await;
        drop(turn);
        context.metrics.probes.inc();
        match tried {
            Ok(true) => return true,
            Ok(false) | Err(DialError::Io(_)) => {}
            Err(DialError::TimedOut(_)) => limit = (limit * 2).min(LONGEST_LIMIT),
            Err(error @ DialError::Forbidden(_)) => {
                tracing::warn!(%error, "A pod is not called");
                return false;
            }
        }
        drop(context);
        sleep(if began.elapsed() > PATIENT_AFTER { PATIENT } else { pause }).await;
        pause = (pause + Duration::from_millis(5)).min(SLOWEST);
    }
}

async fn attempt(dialer: &Dialer, endpoint: &Endpoint, limit: Duration) -> Result<bool, DialError> {
    let stream = dialer.connect(endpoint.address, limit).await?;
    let Some(path) = &endpoint.readiness_path else { return Ok(true) };
    let check = check(TokioIo::new(stream), endpoint, path);
    Ok(timeout(CHECK_LIMIT, check).await.is_ok_and(|answer| answer.is_ok_and(|good| good)))
}

/// Whether the readiness check is answered as kubelet wants it: 2xx or 3xx.
async fn check(
    io: TokioIo<tokio::net::TcpStream>,
    endpoint: &Endpoint,
    path: &str,
) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
    let host = endpoint.address.to_string();
    let request = |uri: String| {
        Request::get(uri)
            .header(header::HOST, &host)
            .header(header::USER_AGENT, "rouse-probe")
            .body(Empty::<Bytes>::new())
    };
    let status = match endpoint.protocol {
        Protocol::Http1 => {
            let (mut sender, connection) = http1::handshake(io).await?;
            let sending = sender.send_request(request(path.to_owned())?);
            // The connection is driven here and not in a task of its own, so that it ends with the try.
            tokio::select! { answer = sending => answer?.status(), end = connection => { end?; return Ok(false) } }
        }
        Protocol::H2c => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            let sending = sender.send_request(request(format!("http://{host}{path}"))?);
            tokio::select! { answer = sending => answer?.status(), end = connection => { end?; return Ok(false) } }
        }
    };
    Ok(status.is_success() || status.is_redirection())
}
