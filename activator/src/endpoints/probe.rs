//! Readiness probes that find a pod ready before the kubelet reports it.
//!
//! From the moment a pod has an IP address it is probed every few milliseconds, one probe at a time. Its
//! [`ReadinessCheck`] makes it ready: a connection, a successful HTTP response, or a gRPC health check.
//!
//! A pod that the kubelet still holds ready is probed after a connect to it has failed. The failure may have had any
//! cause, and the check may be one that the pod never passes (a path that does not exist), so after some seconds a
//! connection is enough.
//!
//! A connection proves that somebody has the address. While the watch of pods is stale, that may be another pod, so a
//! connection alone then makes no pod ready.
//!
//! A probe must not wait for the kernel to send a lost SYN again, which takes a whole second, nor give up a packet that
//! is still on its way. So its timeout follows the round-trip time. That is known early: a pod that does not listen yet
//! refuses, which takes as long as an accept. Where a network drops packets to a pod that is not up (some policies do
//! until they know it) nothing is learnt, and each timeout is twice the one before.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;
use rouse_crds::pod::ReadinessCheck;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    dial::{DialError, Dialer},
    endpoint::Endpoint,
    probe_limiter::ProbeLimiter,
    readiness_check,
    round_trip::RoundTrip,
    watch_age::WatchAge,
};
use crate::{metrics::Metrics, supervise};

/// Probes the endpoints of all functions.
#[derive(Debug)]
pub struct Prober {
    dialer: Dialer,
    metrics: Arc<Metrics>,
    limiter: ProbeLimiter,
    /// Round-trip time to pods in general, for a pod of which nothing is known yet.
    round_trip: Mutex<RoundTrip>,
    /// Age of the watch that reports the addresses.
    pods_watch: Arc<WatchAge>,
}

/// The probing of one endpoint.
#[derive(Debug)]
pub(crate) struct ProbeRequest {
    pub(crate) endpoint: Arc<Endpoint>,
    /// Delay before the first probe.
    pub(crate) delay: Duration,
    /// The kubelet holds the pod ready.
    pub(crate) kubelet_ready: bool,
    /// Stops it.
    pub(crate) stop: CancellationToken,
}

/// Receives the result of a probe. The probe stops when its observer is dropped.
pub(crate) trait ProbeObserver: Send + Sync + 'static {
    /// The endpoint takes requests.
    fn on_ready(self: Arc<Self>, endpoint: &Arc<Endpoint>);
}

/// The probes of one endpoint: their interval and timeout.
#[derive(Debug)]
struct ProbeSchedule {
    began: Instant,
    round_trip: RoundTrip,
    /// Consecutive timeouts.
    timeouts: u32,
}

/// Result of one probe.
#[derive(Debug)]
enum ProbeResult {
    Ready,
    /// The connect was refused, or the pod responded that it is not ready.
    NotYet {
        /// The connect succeeded.
        listens: bool,
    },
    TimedOut,
}

/// Interval of probes at first. It grows with the time since the first one, so that the delay stays a fortieth of that,
/// up to [`MAX_INTERVAL`].
const MIN_INTERVAL: Duration = Duration::from_millis(10);
const MAX_INTERVAL: Duration = Duration::from_millis(50);
/// A program that responds while it starts up has better things to do than to respond again.
const NOT_READY_INTERVAL: Duration = Duration::from_millis(25);
/// Interval of probes after the first minute.
const SLOW_INTERVAL: Duration = Duration::from_millis(500);
const SLOW_AFTER: Duration = Duration::from_secs(60);
/// Age up to which a pod counts as new, and has the rate limit of new pods.
const NEW_POD_AGE: Duration = Duration::from_secs(5);
/// Connect timeout while nothing is known; more if pods in general are farther away.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_TIMEOUT: Duration = Duration::from_secs(2);
/// Time from which a connection is enough for a pod that the kubelet holds ready. The kubelet needs about as long to find
/// that a container has ended or fails its probe.
const KUBELET_DELAY: Duration = Duration::from_secs(3);
/// Timeout of the readiness check after the connect, in addition to the network's round trips.
const READINESS_TIMEOUT: Duration = Duration::from_secs(1);

impl ProbeSchedule {
    fn new(began: Instant) -> Self {
        Self { began, round_trip: RoundTrip::default(), timeouts: 0 }
    }

    fn is_new(&self) -> bool {
        self.began.elapsed() < NEW_POD_AGE
    }

    /// Returns the connect timeout of the next probe. `general` is the round-trip time to pods in general.
    fn limit(&self, general: RoundTrip) -> Duration {
        let known = self.round_trip.limit();
        let limit = known.unwrap_or_else(|| general.limit().unwrap_or_default().max(DEFAULT_TIMEOUT));
        (limit * (1 << self.timeouts.min(8))).min(MAX_TIMEOUT)
    }

    /// Returns the delay before the next probe.
    fn pause(&mut self, result: &ProbeResult) -> Duration {
        self.timeouts = if matches!(result, ProbeResult::TimedOut) { self.timeouts + 1 } else { 0 };
        let elapsed = self.began.elapsed();
        if elapsed > SLOW_AFTER {
            return SLOW_INTERVAL;
        }
        let least =
            if matches!(result, ProbeResult::NotYet { listens: true }) { NOT_READY_INTERVAL } else { MIN_INTERVAL };
        (elapsed / 40).clamp(least, MAX_INTERVAL)
    }
}

impl Prober {
    /// Creates a prober.
    #[must_use]
    pub fn new(dialer: Dialer, metrics: Arc<Metrics>) -> Arc<Self> {
        let pods_watch = Arc::<WatchAge>::default();
        metrics.watch_age("pods", {
            let age = pods_watch.clone();
            move || age.get()
        });
        Arc::new(Self { dialer, metrics, limiter: ProbeLimiter::new(), round_trip: Mutex::default(), pods_watch })
    }

    /// Returns the age of the watch of pods, which that watch keeps up to date.
    #[must_use]
    pub fn pods_watch(&self) -> &Arc<WatchAge> {
        &self.pods_watch
    }

    /// Probes an endpoint until it is ready, the request is cancelled, or the observer is dropped.
    pub(crate) fn spawn<P: ProbeObserver>(self: &Arc<Self>, observer: Weak<P>, request: ProbeRequest) {
        let prober = self.clone();
        let ProbeRequest { endpoint, delay, kubelet_ready, stop } = request;
        let (delay, connect_suffices_after) = match &endpoint.readiness {
            ReadinessCheck::Kubelet => (delay.max(KUBELET_DELAY), Duration::ZERO),
            _ => (delay, KUBELET_DELAY),
        };
        let connect_suffices_after = kubelet_ready.then_some(connect_suffices_after);
        // The breaker starts no second probe until this one has ended, so it must survive a panic.
        supervise::spawn("probe", self.metrics.clone(), move || {
            let (prober, observer, endpoint, stop) = (prober.clone(), observer.clone(), endpoint.clone(), stop.clone());
            async move {
                // Every await inside is cancel-safe: a probe that is cancelled closes its socket.
                let admitted = stop.run_until_cancelled(async {
                    if !delay.is_zero() {
                        sleep(delay).await;
                    }
                    // A weak reference, so that a probe does not keep the breaker of a deleted function.
                    prober.probe_until_ready(&endpoint, connect_suffices_after, || observer.strong_count() > 0).await
                });
                if admitted.await == Some(true)
                    && let Some(observer) = observer.upgrade()
                {
                    observer.on_ready(&endpoint);
                }
            }
        });
    }

    async fn probe_until_ready(
        &self,
        endpoint: &Endpoint,
        connect_suffices_after: Option<Duration>,
        wanted: impl Fn() -> bool,
    ) -> bool {
        let mut schedule = ProbeSchedule::new(Instant::now());
        while wanted() {
            let Some(permit) = self.limiter.acquire(schedule.is_new()).await else { return false };
            let connect_suffices = connect_suffices_after.is_some_and(|after| schedule.began.elapsed() >= after);
            let result = self.probe_once(endpoint, connect_suffices, &mut schedule).await;
            drop(permit);
            self.metrics.probes.inc();
            let pause = match result {
                Ok(ProbeResult::Ready) => return true,
                Ok(result) => schedule.pause(&result),
                Err(error) => {
                    tracing::warn!(%error, "Pod has a forbidden address; not probing it");
                    return false;
                }
            };
            // Pods that started together are not probed in step.
            sleep(pause.mul_f64(rand::random_range(0.8..1.2))).await;
        }
        false
    }

    /// Runs one probe. After an error there is no other.
    async fn probe_once(
        &self,
        endpoint: &Endpoint,
        connect_suffices: bool,
        schedule: &mut ProbeSchedule,
    ) -> Result<ProbeResult, DialError> {
        let general = *self.round_trip.lock();
        let limit = schedule.limit(general);
        let begun = Instant::now();
        let connected = self.dialer.connect(endpoint.address, limit).await;
        if connected.is_ok()
            || matches!(&connected, Err(DialError::Io(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            let took = begun.elapsed();
            schedule.round_trip.measured(took);
            self.round_trip.lock().measured(took);
        }
        let stream = match connected {
            Ok(stream) => stream,
            Err(DialError::TimedOut(_)) => return Ok(ProbeResult::TimedOut),
            Err(error @ DialError::Forbidden(_)) => return Err(error),
            Err(_) => return Ok(ProbeResult::NotYet { listens: false }),
        };
        // Whether the connection is to the pod that the watch has reported, and not to another one with its address.
        let known = !self.pods_watch.is_stale();
        if connect_suffices && known {
            return Ok(ProbeResult::Ready);
        }
        // A lost request or response is retransmitted after about as long as a lost SYN, and after twice that if it is
        // lost again.
        let limit = READINESS_TIMEOUT + 3 * schedule.limit(general).min(MAX_TIMEOUT / 2);
        let good = timeout(limit, async {
            match &endpoint.readiness {
                ReadinessCheck::Tcp => Ok(known),
                ReadinessCheck::Http(path) => readiness_check::http(stream, endpoint, path).await,
                ReadinessCheck::Grpc(service) => readiness_check::grpc(stream, endpoint, service).await,
                ReadinessCheck::Kubelet => Ok(false),
            }
        });
        let ready = good.await.is_ok_and(|checked| checked.is_ok_and(|good| good));
        Ok(if ready { ProbeResult::Ready } else { ProbeResult::NotYet { listens: true } })
    }
}

#[cfg(test)]
mod tests;
