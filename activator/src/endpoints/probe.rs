//! Finding out that a pod takes requests, before kubelet says so.
//!
//! From the moment a pod has an address it is tried every few milliseconds, one try at a time. A connection, or an answer to
//! the readiness check if there is one, admits it.
//!
//! A try must not wait for the kernel to send a lost SYN again, which it does after a whole second, nor give up what is still
//! on its way. So its limit follows the round trip, and that is known early: a pod that does not listen yet refuses, which
//! takes as long as an acceptance. Only where a network drops what is sent to a pod that is not up (some policies do until
//! they know it) nothing is learnt; then each limit is twice the one before.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use http::{Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::{
    body::{Bytes, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rouse_crds::function::Protocol;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    dial::{DialError, Dialer},
    endpoint::Endpoint,
    probe_limiter::ProbeLimiter,
    round_trip::RoundTrip,
};
use crate::{metrics::Metrics, supervise};

/// Probes the pods of a process.
#[derive(Debug)]
pub struct Prober {
    dialer: Dialer,
    metrics: Arc<Metrics>,
    limiter: ProbeLimiter,
    /// To pods in general, for those of which nothing is known yet.
    round_trip: Mutex<RoundTrip>,
}

/// Who wants to know that a pod takes requests. Its probes end with it.
pub(crate) trait Probed: Send + Sync + 'static {
    /// The pod takes requests.
    fn probe_succeeded(self: Arc<Self>, endpoint: &Arc<Endpoint>);
}

/// The tries of one pod.
#[derive(Debug)]
struct Course {
    began: Instant,
    round_trip: RoundTrip,
    /// Tries in a row that ran out of time.
    in_vain: u32,
}

/// How a try went.
#[derive(Debug)]
enum Tried {
    Ready,
    /// Nobody listens, or it says that it is not ready.
    NotYet {
        /// It was connected to.
        listens: bool,
    },
    TimedOut,
}

/// Time between tries at first. It grows with the time that the pod has been tried for, so that what is waited in vain stays
/// a fortieth of that at most, up to [`SLOWEST`].
const FASTEST: Duration = Duration::from_millis(10);
const SLOWEST: Duration = Duration::from_millis(50);
/// A program that starts and answers that it is not ready has better things to do than to say so again.
const AFTER_AN_ANSWER: Duration = Duration::from_millis(25);
/// Time between tries of a pod that has been tried for a minute.
const PATIENT: Duration = Duration::from_millis(500);
const PATIENT_AFTER: Duration = Duration::from_secs(60);
/// For so long a pod is new, and has its turns before those that are not.
const NEW: Duration = Duration::from_secs(5);
/// How long a try may take of which nothing is known, or more if pods in general are farther than that.
const UNKNOWN: Duration = Duration::from_millis(100);
const LONGEST_LIMIT: Duration = Duration::from_secs(2);
/// How long a readiness check may take once the connection is there, on top of what the network needs.
const CHECK: Duration = Duration::from_secs(1);

impl Course {
    fn new(began: Instant) -> Self {
        Self { began, round_trip: RoundTrip::default(), in_vain: 0 }
    }

    fn is_new(&self) -> bool {
        self.began.elapsed() < NEW
    }

    /// How long the next try may take to connect, if `general` is known of pods in general.
    fn limit(&self, general: RoundTrip) -> Duration {
        let known = self.round_trip.limit();
        let limit = known.unwrap_or_else(|| general.limit().unwrap_or_default().max(UNKNOWN));
        (limit * (1 << self.in_vain.min(8))).min(LONGEST_LIMIT)
    }

    /// How long until the next try.
    fn pause(&mut self, tried: &Tried) -> Duration {
        self.in_vain = if matches!(tried, Tried::TimedOut) { self.in_vain + 1 } else { 0 };
        let elapsed = self.began.elapsed();
        if elapsed > PATIENT_AFTER {
            return PATIENT;
        }
        let least = if matches!(tried, Tried::NotYet { listens: true }) { AFTER_AN_ANSWER } else { FASTEST };
        (elapsed / 40).clamp(least, SLOWEST)
    }
}

impl Prober {
    /// A prober that counts its tries.
    #[must_use]
    pub fn new(dialer: Dialer, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { dialer, metrics, limiter: ProbeLimiter::new(), round_trip: Mutex::default() })
    }

    /// Probes `endpoint` after `delay` until it is admitted, `stop` is cancelled, or nobody wants to know.
    pub(crate) fn spawn<P: Probed>(
        self: &Arc<Self>,
        probed: Weak<P>,
        endpoint: Arc<Endpoint>,
        delay: Duration,
        stop: CancellationToken,
    ) {
        let prober = self.clone();
        // Its gate starts no second one as long as this one has not come to an end, so a defect must not end it.
        supervise::spawn("probe", self.metrics.clone(), move || {
            let (prober, probed, endpoint, stop) = (prober.clone(), probed.clone(), endpoint.clone(), stop.clone());
            async move {
                // Every await inside is cancel-safe: a try that is given up closes its socket.
                let admitted = stop.run_until_cancelled(async {
                    if !delay.is_zero() {
                        sleep(delay).await;
                    }
                    // Not held, so that a probe does not keep the gate of a deleted function.
                    prober.until_it_answers(&endpoint, || probed.strong_count() > 0).await
                });
                if admitted.await == Some(true)
                    && let Some(probed) = probed.upgrade()
                {
                    probed.probe_succeeded(&endpoint);
                }
            }
        });
    }

    async fn until_it_answers(&self, endpoint: &Endpoint, wanted: impl Fn() -> bool) -> bool {
        let mut course = Course::new(Instant::now());
        while wanted() {
            let Some(permit) = self.limiter.acquire(course.is_new()).await else { return false };
            let tried = self.attempt(endpoint, &mut course).await;
            drop(permit);
            self.metrics.probes.inc();
            let pause = match tried {
                Ok(Tried::Ready) => return true,
                Ok(tried) => course.pause(&tried),
                Err(error) => {
                    tracing::warn!(%error, "A pod is not called");
                    return false;
                }
            };
            // Pods that were started together are not tried in step.
            sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
        }
        false
    }

    /// One try. An error says that there will be no other.
    async fn attempt(&self, endpoint: &Endpoint, course: &mut Course) -> Result<Tried, DialError> {
        let general = *self.round_trip.lock();
        let limit = course.limit(general);
        let begun = Instant::now();
        let connected = self.dialer.connect(endpoint.address, limit).await;
        if connected.is_ok()
            || matches!(&connected, Err(DialError::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            let took = begun.elapsed();
            course.round_trip.measured(took);
            self.round_trip.lock().measured(took);
        }
        let stream = match connected {
            Ok(stream) => stream,
            Err(DialError::TimedOut(_)) => return Ok(Tried::TimedOut),
            Err(DialError::Io(_)) => return Ok(Tried::NotYet { listens: false }),
            Err(error @ DialError::Forbidden(_)) => return Err(error),
        };
        let Some(path) = &endpoint.readiness_path else { return Ok(Tried::Ready) };
        // A lost request or answer is sent again after about as long as a lost SYN, and twice that if it is lost again.
        let limit = CHECK + 3 * course.limit(general).min(LONGEST_LIMIT / 2);
        let good = timeout(limit, check(TokioIo::new(stream), endpoint, path)).await;
        let ready = good.is_ok_and(|answer| answer.is_ok_and(|good| good));
        Ok(if ready { Tried::Ready } else { Tried::NotYet { listens: true } })
    }
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
            answer(sender.send_request(request(path.to_owned())?), connection).await?
        }
        Protocol::H2c => {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            answer(sender.send_request(request(format!("http://{host}{path}"))?), connection).await?
        }
    };
    Ok(status.is_success() || status.is_redirection())
}

/// The status of an answer. The connection is driven here and not in a task of its own, so that it ends with the try.
async fn answer(
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> hyper::Result<StatusCode> {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => Ok(answer?.status()),
        // Many servers answer and hang up in one go, and then the end of the connection is seen with the answer.
        _ = connection => Ok(answer.await?.status()),
    }
}

#[cfg(test)]
mod tests;
