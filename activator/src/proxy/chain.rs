//! The request chain: every step of a request, in order.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use rouse_crds::function::Protocol;
use tokio::time::{Instant, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    affinity,
    forward::{Forwarded, forward},
    grpc_timeout,
    headers::{self, Asked},
    in_pod::InPod,
    max_forwards,
    mirror::Mirror,
    response_body::{Body, IdleTimeout},
    response_head, server_timing, trace, upgrade, validate,
};
use crate::{
    admit::{Admission, Breaker, Permit, Policy, Target, Ticket},
    body::{MinimumRate, Progress, RequestBody},
    downstream::{Peer, READ_AHEAD, STREAM_WINDOW, UploadStream, WindowBudget},
    hop_by_hop::{self, Found},
    metrics::Metrics,
    problem::{Format, Kind, Problem},
    route::{Host, Route, RouteError, RuleDecision, Side, Table, cors::CorsGrant, to_https},
};

/// The request chain and what it needs.
#[derive(Debug)]
pub struct Proxy {
    table: Arc<Table>,
    metrics: Arc<Metrics>,
    mirror: Mirror,
    /// Cancelled when the process is about to exit, and queued requests have to be rejected.
    closing: CancellationToken,
    tunnels: TaskTracker,
    /// What HTTP/2 uploads may have beyond the window of a queued request.
    upload_windows: Arc<WindowBudget>,
    draining: AtomicBool,
    /// Redirects public requests without TLS to `https://`.
    https_redirect: bool,
}

/// The client disconnected; there is nobody to respond to. The server closes the connection.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the client disconnected")]
pub struct ClientGone;

/// Why a request ends without a response of its function.
enum Abort {
    Respond(Problem),
    ClientGone,
}

/// What the response depends on of the client's request.
#[derive(Default)]
struct ClientSide {
    /// The connection to upgrade, and the protocols that the client offers.
    upgrade: Option<Box<(OnUpgrade, HeaderValue)>>,
    /// The client used TLS.
    https: bool,
}

/// A request on its way to a pod.
struct Outbound<'a, F> {
    /// Taken when it is sent.
    request: &'a mut Option<Request<RequestBody>>,
    /// Makes the client's request the one for a pod.
    rewrite: F,
    /// Until when a gRPC client waits.
    client_deadline: Option<Instant>,
}

/// A response that does not come from a pod, and the status that is counted: that of a gRPC response is 200.
type LocalResponse = (StatusCode, Response<Body>);

/// A pod's response, its connection, and the permit that it holds.
type PodResponse = (Response<Incoming>, InPod);

impl From<Problem> for Abort {
    fn from(problem: Problem) -> Self {
        Self::Respond(problem)
    }
}

/// Counts a client that disconnects while its request is queued. It counts on drop, because the server may just drop
/// the request.
struct DisconnectCounter<'a>(Option<&'a Metrics>);

impl Drop for DisconnectCounter<'_> {
    fn drop(&mut self) {
        if let Some(metrics) = self.0 {
            metrics.client_disconnects.inc();
        }
    }
}

impl Proxy {
    /// Creates a proxy that routes by this table. Queued requests are rejected once `closing` is cancelled.
    #[must_use]
    pub fn new(table: Arc<Table>, metrics: Arc<Metrics>, closing: CancellationToken) -> Self {
        let mirror = Mirror::new(metrics.clone());
        let (tunnels, draining) = (TaskTracker::new(), AtomicBool::new(false));
        let upload_windows = WindowBudget::of_process();
        Self { table, metrics, mirror, closing, tunnels, upload_windows, draining, https_redirect: false }
    }

    /// Sets whether public requests that used TLS neither here nor at the ingress are redirected to `https://`.
    #[must_use]
    pub fn with_https_redirect(mut self, redirects: bool) -> Self {
        self.https_redirect = redirects;
        self
    }

    /// Returns the metrics.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the budget for windows of HTTP/2 uploads.
    pub(crate) fn upload_windows(&self) -> &Arc<WindowBudget> {
        &self.upload_windows
    }

    /// Starts draining: every response asks its client to close the connection.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Returns the open tunnels.
    #[must_use]
    pub fn tunnels(&self) -> &TaskTracker {
        &self.tunnels
    }

    /// Serves a request.
    ///
    /// The HTTP library moves this future before it runs it, and keeps it while the request is queued. So it has to be
    /// small: it owns its arguments, and rare state is boxed.
    ///
    /// Dropping the future aborts the request: it leaves the queue, or its pod.
    ///
    /// # Errors
    ///
    /// If the client disconnected.
    pub async fn serve(
        self: Arc<Self>,
        side: Side,
        peer: Arc<Peer>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, ClientGone> {
        peer.state.set_awaiting_response(true);
        let (mut parts, body) = request.into_parts();
        let bodiless = parts.method == Method::HEAD && parts.version == Version::HTTP_2;
        let mut found = hop_by_hop::scan(&parts.headers);
        if !peer.trusted {
            hop_by_hop::strip_origin(&mut parts.headers, &mut found);
        }
        let request_id = trace::RequestId::of(&parts.headers);
        let id_text = || request_id.as_str();
        let format = Format::of(&parts.headers);

        // 1. Validate and route.
        let routed = validate::validate(&parts, &peer, &found).and_then(|()| self.route(side, &parts));
        let route = match routed {
            Ok(route) => route,
            Err(problem) => {
                self.metrics.record_unrouted(problem.kind().name());
                let mut response = local_response(problem.response(format, None, id_text()).map(Body::full), bodiless);
                if problem.kind().closes() && parts.version <= Version::HTTP_11 {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                self.finish_response(&peer, &mut response);
                return Ok(response);
            }
        };

        // 2. Responses without a pod: method not allowed, CORS preflight, redirect to HTTPS, the last hop of OPTIONS.
        let (response, grant) = self.respond_locally(side, &peer, &route, &mut parts, &found, (format, id_text()));
        let Route { breaker, revision, rules } = route;
        drop(rules);
        if let Some((status, response)) = response {
            let mut response = local_response(response, bodiless);
            breaker.metrics().record_response(status);
            self.finish_response(&peer, &mut response);
            return Ok(response);
        }

        // 3. Admit, wake, pick, forward.
        let window = parts.extensions.remove::<UploadStream>().and_then(|stream| peer.state.upload(stream.0));
        let policy = breaker.policy();
        let client_deadline = match format {
            Format::Grpc => grpc_timeout::parse(&parts.headers).and_then(|timeout| Instant::now().checked_add(timeout)),
            Format::Json => None,
        };
        let target = affinity::select_target(revision, &breaker, &policy, &parts.headers);
        let progress = (!body.is_end_stream()).then(|| Progress::new(minimum_rate(&policy, &peer)));
        let mut request =
            Some(Request::from_parts(parts, RequestBody::new(body, progress.clone()).with_window(window)));
        // Once the request has a pod: without the added headers a queued request takes less memory.
        let mut client = ClientSide::default();
        let rewrite = |request: &mut Request<RequestBody>| {
            request_id.add(request.headers_mut());
            let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
            let Asked { upgrade, https } = headers::toward_pod(request, &peer, &found);
            // Boxed, as it is rare.
            client = ClientSide { upgrade: on_upgrade.zip(upgrade).map(Box::new), https };
        };
        let outbound = Outbound { request: &mut request, rewrite, client_deadline };
        let responded = self.send_to_pod(&breaker, &target, &policy, &peer, outbound, progress.as_ref()).await;

        // 4. Respond.
        let response = match responded {
            Ok(response) => self.relay_response(response, &peer, client, &target, &policy, progress),
            // Anonymous clients get the reason; the sentences of the kubelet and the API server stay inside the cluster.
            Err(Abort::Respond(problem)) => Err(if side == Side::Cluster { problem.with_cause() } else { problem }),
            Err(Abort::ClientGone) => return Err(ClientGone),
        };
        let (status, mut response) = match response {
            Ok(response) => (response.status(), response),
            Err(problem) => {
                let response = problem.response(format, Some(breaker.id()), id_text()).map(Body::full);
                let mut response = local_response(response, bodiless);
                if problem.kind().closes() && !peer.state.is_http2() {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                (problem.kind().status(), response)
            }
        };
        if let Some(grant) = grant {
            grant.write(response.headers_mut());
        }
        breaker.metrics().record_response(status);
        self.finish_response(&peer, &mut response);
        Ok(response)
    }

    /// Finishes a response before it is sent.
    fn finish_response(&self, peer: &Peer, response: &mut Response<Body>) {
        peer.state.set_awaiting_response(false);
        if (self.draining.load(Ordering::Relaxed) || peer.is_expired())
            && !peer.state.is_http2()
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            // A client that closes after a response loses no request; one whose connection is just closed may.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    fn route(&self, side: Side, parts: &http::request::Parts) -> Result<Route, Problem> {
        let host = Host::of(parts).map_err(|error| Problem::new(Kind::BadRequest, error.to_string()))?;
        self.table.find(side, &host, parts.uri.path()).map_err(|unrouted| match unrouted {
            RouteError::Host => {
                Problem::new(Kind::UnknownHost, "no function that is reachable from here has the host of this request")
            }
            RouteError::Path => Problem::new(
                Kind::UnknownPath,
                "no function that is reachable from here has the path of this request on its host",
            ),
            RouteError::Ambiguous(error) => Problem::new(Kind::AmbiguousPath, error.to_string()),
        })
    }

    /// Returns the response to a request that needs no pod, and the CORS headers for any other response.
    fn respond_locally(
        &self,
        side: Side,
        peer: &Peer,
        route: &Route,
        parts: &mut http::request::Parts,
        found: &Found,
        (format, request_id): (Format, &str),
    ) -> (Option<LocalResponse>, Option<Box<CorsGrant>>) {
        let rejected = |problem: Problem, grant: Option<Box<CorsGrant>>| {
            let response = problem.response(format, Some(route.breaker.id()), request_id).map(Body::full);
            (Some((problem.kind().status(), with_grant(response, grant))), None)
        };
        let (decision, grant) =
            route.rules.as_ref().map_or((RuleDecision::Forward, None), |rules| rules.evaluate(parts));
        let last = match decision {
            RuleDecision::Forward => max_forwards::is_last(parts, found),
            RuleDecision::Preflight(_) | RuleDecision::MethodNotAllowed(_) => Ok(false),
        };
        let elsewhere = || (self.https_redirect && side == Side::Public && !peer.secure).then(|| to_https(parts))?;
        let response = match decision {
            RuleDecision::Forward => match (last, elsewhere()) {
                (Err(problem), _) => return rejected(problem, grant),
                (Ok(true), _) if parts.method == Method::TRACE => {
                    // What it would send back may have credentials in it.
                    let detail = "the activator itself does not respond to TRACE";
                    return rejected(Problem::new(Kind::NotSupported, detail), grant);
                }
                (Ok(true), _) => {
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = StatusCode::NO_CONTENT;
                    with_grant(response, grant)
                }
                (Ok(false), None) => return (None, grant),
                (Ok(false), Some(location)) => {
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
                    response.headers_mut().insert(header::LOCATION, location);
                    // A page follows a redirect only if it may read it.
                    with_grant(response, grant)
                }
            },
            // Before a redirect: browsers follow no redirect of a preflight.
            RuleDecision::Preflight(grant) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                *response.headers_mut() = grant.preflight(&parts.headers);
                response
            }
            RuleDecision::MethodNotAllowed(methods) => {
                let problem =
                    Problem::new(Kind::MethodNotAllowed, "the route of this request allows other methods only");
                return rejected(problem.allow(methods), grant);
            }
        };
        (Some((response.status(), response)), None)
    }

    /// Gets a permit, waiting for it if necessary, and sends the request to its pod; to another pod if the connect
    /// failed.
    async fn send_to_pod(
        &self,
        breaker: &Arc<Breaker>,
        target: &Target,
        policy: &Policy,
        peer: &Peer,
        Outbound { request, rewrite, client_deadline }: Outbound<'_, impl FnOnce(&mut Request<RequestBody>)>,
        progress: Option<&Arc<Progress>>,
    ) -> Result<PodResponse, Abort> {
        let mut rewrite = Some(rewrite);
        // Set once it matters: most requests get a permit at once, and reading the clock is a notable part of their cost.
        let mut first_arrival = None;
        // Boxed, as only gRPC requests have one.
        let mut expired = client_deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        let mut mirror = policy.mirror.as_ref();
        let mut copy = None;
        let mut admission = breaker.admit(target, || request.as_ref().map_or(0, queued_bytes));
        let mut unreachable = None;
        let mut cold = None;
        loop {
            let mut permit = match admission.map_err(Problem::from)? {
                Admission::Granted(permit) => permit,
                // Boxed, so that a request that is not queued is not larger for it.
                Admission::Queued(ticket) => {
                    let arrived = *first_arrival.get_or_insert_with(Instant::now);
                    let deadlines = (arrived + policy.cold_start, client_deadline);
                    let permit = Box::pin(self.wait_for_permit(ticket, deadlines, unreachable.as_deref())).await?;
                    if let (Some(deadline), Some(request)) = (client_deadline, request.as_mut()) {
                        grpc_timeout::write(request.headers_mut(), deadline, Instant::now());
                    }
                    permit
                }
            };
            // The cold start of a request that goes to a second pod is the sum of both waits.
            cold = permit.cold_start().or(cold);
            permit.set_cold_start(cold);
            if policy.count_outcomes {
                permit.mark_sent();
            }
            if let (Some(rewrite), Some(request)) = (rewrite.take(), request.as_mut()) {
                rewrite(request);
            }
            if let (Some(mirror), Some(request)) = (mirror.take(), request.as_mut()) {
                copy = self.mirror.copy(&permit, target, mirror, request);
            } else if copy.as_ref().is_some_and(|copy| copy.is_for(&permit)) {
                // The request goes to the mirror's own revision after all, and is not sent there twice.
                copy = None;
                if let Some(request) = request.as_mut() {
                    request.body_mut().stop_copy();
                }
            }
            let forwarded = tokio::select! {
                biased;
                forwarded = forward(permit, request, &breaker.context().dialer, policy, progress, &peer.timer) => forwarded,
                // The client chose the deadline, so the pod is not blamed: this is as if the client had disconnected.
                Some(()) = async { expired.as_mut()?.await; Some(()) } => return Err(deadline_exceeded().into()),
            };
            match forwarded {
                Forwarded::Response(response, in_pod) => {
                    if let Some(copy) = copy {
                        self.mirror.pod_responded(*copy, breaker);
                    }
                    return Ok((response, in_pod));
                }
                Forwarded::ConnectFailed(mut permit, error) => {
                    self.metrics.retries.inc();
                    let (sequence, arrived) = (permit.sequence(), permit.arrived());
                    let late = Instant::now() >= *first_arrival.get_or_insert(arrived) + policy.cold_start;
                    if late {
                        permit.record_failure();
                    }
                    permit.connect_failed();
                    if late {
                        return Err(Problem::new(Kind::PodUnreachable, error).into());
                    }
                    unreachable = Some(error);
                    admission = breaker.readmit(target, || request.as_ref().map_or(0, queued_bytes), sequence, arrived);
                }
                Forwarded::NoStream(permit) => {
                    self.metrics.retries.inc();
                    let (sequence, arrived) = (permit.sequence(), permit.arrived());
                    permit.put_back();
                    if Instant::now() >= *first_arrival.get_or_insert(arrived) + policy.cold_start {
                        let detail = "the pods allow no further HTTP/2 streams (SETTINGS_MAX_CONCURRENT_STREAMS)";
                        return Err(Problem::new(Kind::ColdStartTimeout, detail).into());
                    }
                    admission = breaker.readmit(target, || request.as_ref().map_or(0, queued_bytes), sequence, arrived);
                }
                Forwarded::Broken(error) => return Err(Problem::new(Kind::BadResponse, error).into()),
                Forwarded::TimedOut => {
                    let detail = format!("the pod did not begin to respond within {:?}", policy.response);
                    return Err(Problem::new(Kind::ResponseTimeout, detail).into());
                }
                Forwarded::ClientTooSlow => {
                    let detail = "the request body arrived below the minimum rate";
                    return Err(Problem::new(Kind::RequestTimeout, detail).into());
                }
                // The client disconnected, or its request body is malformed.
                Forwarded::ClientAborted => {
                    return Err(peer.state.fault().map_or(Abort::ClientGone, |fault| Abort::Respond(fault.into())));
                }
            }
        }
    }

    async fn wait_for_permit(
        &self,
        mut ticket: Ticket,
        (deadline, client_deadline): (Instant, Option<Instant>),
        unreachable: Option<&str>,
    ) -> Result<Permit, Abort> {
        let first = client_deadline.map_or(deadline, |client| client.min(deadline));
        // Dropped if the client disconnects.
        let mut disconnect = DisconnectCounter(Some(&self.metrics));
        let waited = tokio::select! {
            biased;
            permit = ticket.wait() => permit.map_err(|rejection| Abort::Respond(rejection.into())),
            () = sleep_until(first) => Err(Abort::Respond(match unreachable {
                _ if first < deadline => deadline_exceeded(),
                Some(error) => {
                    ticket.record_failure();
                    Problem::new(Kind::PodUnreachable, error)
                }
                None => Problem::new(Kind::ColdStartTimeout, "no pod was ready within spec.timeouts.coldStart")
                    .because(ticket.blocked_by()),
            })),
            () = self.closing.cancelled() => {
                let problem = Problem::new(Kind::ShuttingDown, "the request was queued in an activator that is shutting down");
                Err(Abort::Respond(problem.retry_after(std::time::Duration::from_secs(1))))
            }
        };
        disconnect.0 = None;
        waited
    }

    /// Turns the response of a pod into the response to the client.
    fn relay_response(
        &self,
        (mut response, mut in_pod): PodResponse,
        peer: &Arc<Peer>,
        client: ClientSide,
        target: &Target,
        policy: &Policy,
        progress: Option<Arc<Progress>>,
    ) -> Result<Response<Body>, Problem> {
        let Some((connection, mut permit)) = in_pod.take() else {
            return Err(Problem::new(Kind::BadResponse, "the response has already ended"));
        };
        let cold = permit.cold_start();
        let changes = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let change = client.upgrade.filter(|_| changes).and_then(|upgrade| {
            let (client, offered) = *upgrade;
            Some((client, response_head::switched_protocol(response.headers(), &offered)?))
        });
        let fault = if changes && change.is_none() {
            Err("the pod switched to a protocol that was not asked for")
        } else {
            response_head::strip_hop(&mut response).and_then(|()| headers::toward_client(response.headers_mut()))
        };
        if let Err(fault) = fault {
            permit.record_failure();
            drop(InPod::new(connection, permit));
            return Err(Problem::new(Kind::BadResponse, fault));
        }
        permit.record_outcome(response.status(), progress.as_ref().map(|progress| progress.last()));
        affinity::set_cookie(policy, target, &permit, client.https, response.headers_mut());
        if !peer.state.is_http2() {
            peer.state.set_idle_timeout(policy.idle);
        }
        let mut passed = if let Some((client, protocol)) = change {
            peer.state.set_tunnel();
            upgrade::tunnel(&self.tunnels, client, hyper::upgrade::on(&mut response), permit, policy.idle);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(header::UPGRADE, protocol);
            response.map(|_| Body::empty())
        } else {
            let idle_timeout = policy.idle.map(|limit| IdleTimeout::new(limit, progress, peer.clone()));
            let http2 = peer.state.is_http2();
            response.map(|body| Body::pod(body, InPod::new(connection, permit), idle_timeout).for_http2(http2))
        };
        if let Some(cold) = cold {
            self.metrics.cold_starts.observe(cold.queue.as_secs_f64());
            server_timing::write(passed.headers_mut(), &cold);
        }
        Ok(passed)
    }
}

fn deadline_exceeded() -> Problem {
    Problem::new(
        Kind::DeadlineExceeded,
        "the deadline of the client (grpc-timeout) passed before the function responded",
    )
}

/// Adds the CORS headers to a local response.
fn with_grant(mut response: Response<Body>, grant: Option<Box<CorsGrant>>) -> Response<Body> {
    if let Some(grant) = grant {
        grant.write(response.headers_mut());
    }
    response
}

/// Removes the body of a local response to HEAD over HTTP/2: hyper would send it there, which is a protocol error.
fn local_response(mut response: Response<Body>, bodiless: bool) -> Response<Body> {
    if bodiless && let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        *response.body_mut() = Body::empty();
    }
    response
}

/// Returns the minimum rate of a request body. A function with `protocol: h2c` has none: gRPC clients stream for as long
/// as they like, and may send a message now and then.
fn minimum_rate(policy: &Policy, peer: &Peer) -> Option<MinimumRate> {
    (policy.protocol == Protocol::Http1).then(|| MinimumRate::new(peer.body_time, peer.body_rate))?
}

/// Returns the bytes that a queued request holds in memory: its head, and what is read of its body before anybody asks
/// for it.
fn queued_bytes(request: &Request<RequestBody>) -> u64 {
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let target = request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    let most = if request.version() == Version::HTTP_2 { STREAM_WINDOW.into() } else { READ_AHEAD as u64 };
    let ahead = request.body().size_hint().upper().unwrap_or(most).min(most);
    (headers + target) as u64 + ahead
}
