//! The chain: everything that happens to a request, in its order.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::{Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use tokio::time::{Instant, sleep_until};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    affinity,
    forward::{Forwarded, forward},
    headers, hygiene,
    mirror::Mirror,
    response_body::Body,
    server_timing, trace, upgrade,
};
use crate::{
    admit::{Entered, Gate, Lease, Policy, Target, Ticket},
    body::{Progress, RequestBody},
    downstream::{Peer, STREAM_WINDOW},
    endpoints::Connection,
    metrics::Metrics,
    problem::{Kind, Problem},
    route::{Host, Route, Side, Table, Unrouted, Verdict, cors::Grant, to_https},
};

/// Everything that a request passes through.
#[derive(Debug)]
pub struct Proxy {
    table: Arc<Table>,
    metrics: Arc<Metrics>,
    mirror: Mirror,
    /// Cancelled when waiting any longer is of no use, because this process is about to end.
    closing: CancellationToken,
    tunnels: TaskTracker,
    leaving: AtomicBool,
    /// Public calls that did not come by TLS are sent there.
    https_redirect: bool,
}

/// The client has left; there is nobody to answer. The server closes the connection.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the client left")]
pub struct Gone;

/// Why a request ends without an answer of its function.
enum Stop {
    Answer(Problem),
    Gone,
}

/// A pod's answer, the connection on which it comes, and the place that it takes.
type Answer = (Response<Incoming>, Connection, Lease);

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Answer(problem)
    }
}

/// Counts a client that leaves while it waits, however that is noticed: the server may just drop the request.
struct Departure<'a>(Option<&'a Metrics>);

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        if let Some(metrics) = self.0 {
            metrics.departures.inc();
        }
    }
}

/// What hyper reads ahead of a body before anybody asks for it, by HTTP/1.
const READ_AHEAD: u64 = 8 << 10;

impl Proxy {
    /// A proxy by this table. Requests that wait are turned away once `closing` is cancelled.
    #[must_use]
    pub fn new(table: Arc<Table>, metrics: Arc<Metrics>, closing: CancellationToken) -> Self {
        let mirror = Mirror::new(metrics.clone());
        let (tunnels, leaving) = (TaskTracker::new(), AtomicBool::new(false));
        Self { table, metrics, mirror, closing, tunnels, leaving, https_redirect: false }
    }

    /// Whether public calls that did not come by TLS, neither here nor at the ingress, are sent there.
    #[must_use]
    pub fn with_https_redirect(mut self, redirects: bool) -> Self {
        self.https_redirect = redirects;
        self
    }

    /// Counts for operators.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// From here on clients are told with every answer to close their connections.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Tunnels that are open.
    #[must_use]
    pub fn tunnels(&self) -> &TaskTracker {
        &self.tunnels
    }

    /// Answers a request.
    ///
    /// The HTTP library moves the future of this before it runs it, and keeps it while the request waits, so it is to be small: it
    /// owns what it is given, and what is rare is in boxes.
    ///
    /// Dropping the future ends the request wherever it is: its place in the queue or in its pod is given up.
    ///
    /// # Errors
    ///
    /// If the client has left.
    pub async fn serve(
        self: Arc<Self>,
        side: Side,
        peer: Arc<Peer>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Gone> {
        peer.heads.waiting(true);
        let (mut parts, body) = request.into_parts();
        let bodiless = parts.method == Method::HEAD && parts.version == Version::HTTP_2;
        let request_id = trace::request_id(&mut parts.headers);
        let id_text = || request_id.to_str().unwrap_or_default();

        // 1. Hygiene and route: is it a request, and whose?
        let routed = hygiene::inspect(&parts, &peer).and_then(|()| self.route(side, &parts));
        let route = match routed {
            Ok(route) => route,
            Err(problem) => {
                self.metrics.refused(problem.kind().name());
                let mut response = own(problem.response(None, id_text()).map(Body::full), bodiless);
                if problem.kind().closes() && parts.version <= Version::HTTP_11 {
                    response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
                }
                self.part(&peer, &mut response);
                return Ok(response);
            }
        };

        // 2. What is answered without a pod: other methods than the route's, preflights, the way to TLS.
        let (answer, grant) = self.screen(side, &peer, &route, &parts, id_text());
        let Route { gate, revision, rules } = route;
        drop(rules);
        if let Some(answer) = answer {
            let mut response = own(answer, bodiless);
            gate.metrics().answered(response.status());
            self.part(&peer, &mut response);
            return Ok(response);
        }

        // 3. Admit, wake, pick, forward.
        let client = parts.extensions.remove::<OnUpgrade>();
        let wants_upgrade = headers::toward_pod(&mut parts, &peer);
        let client = client.filter(|_| wants_upgrade);
        let policy = gate.policy();
        let target = affinity::target(revision, &gate, &policy, &parts.headers);
        let progress = (policy.idle.is_some() || !body.is_end_stream()).then(Progress::new);
        let mut request = Some(Request::from_parts(parts, RequestBody::new(body, progress.clone())));
        let answered = self.call(&gate, &target, &policy, &peer, &mut request, progress.as_ref()).await;

        // 4. Answer.
        let response = match answered {
            Ok(answer) => self.pass(answer, &peer, client, &target, &policy, progress),
            Err(Stop::Answer(problem)) => Err(problem),
            Err(Stop::Gone) => return Err(Gone),
        };
        let mut response = response
            .unwrap_or_else(|problem| own(problem.response(Some(gate.id()), id_text()).map(Body::full), bodiless));
        if let Some(grant) = grant {
            grant.write(response.headers_mut());
        }
        gate.metrics().answered(response.status());
        self.part(&peer, &mut response);
        Ok(response)
    }

    /// The last that is done for an answer before it goes.
    fn part(&self, peer: &Peer, response: &mut Response<Body>) {
        peer.heads.waiting(false);
        if self.leaving.load(Ordering::Relaxed)
            && !peer.heads.is_http2()
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            // A connection that ends by word of an answer loses no request, unlike one that is just closed.
            response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
        }
    }

    fn route(&self, side: Side, parts: &http::request::Parts) -> Result<Route, Problem> {
        let host = Host::of(parts).map_err(|error| Problem::new(Kind::BadRequest, error.to_string()))?;
        self.table.find(side, &host, parts.uri.path()).map_err(|unrouted| match unrouted {
            Unrouted::Host => Problem::new(
                Kind::UnknownHost,
                "no function that can be called from here answers to the host of this request",
            ),
            Unrouted::Path => Problem::new(
                Kind::UnknownPath,
                "no function that can be called from here answers to the path of this request on its host",
            ),
            Unrouted::Ambiguous(error) => Problem::new(Kind::AmbiguousPath, error.to_string()),
        })
    }

    /// The answer to a request that needs no pod for it; and what is put into its answer, whoever gives that.
    fn screen(
        &self,
        side: Side,
        peer: &Peer,
        route: &Route,
        parts: &http::request::Parts,
        request_id: &str,
    ) -> (Option<Response<Body>>, Option<Box<Grant>>) {
        let (verdict, grant) = route.rules.as_ref().map_or((Verdict::Go, None), |rules| rules.judge(parts));
        let elsewhere = || (self.https_redirect && side == Side::Public && !peer.secure).then(|| to_https(parts))?;
        let answer = match verdict {
            Verdict::Go => {
                let Some(location) = elsewhere() else { return (None, grant) };
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
                response.headers_mut().insert(header::LOCATION, location);
                // A page follows only what it may read.
                if let Some(grant) = grant {
                    grant.write(response.headers_mut());
                }
                response
            }
            // Of what is sent elsewhere as well: browsers follow no redirect of a preflight.
            Verdict::Preflight(grant) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                *response.headers_mut() = grant.preflight(&parts.headers);
                response
            }
            Verdict::NotAllowed(methods) => {
                let problem = Problem::new(Kind::MethodNotAllowed, "the route of this request lets other methods in");
                let mut response = problem.allow(methods).response(Some(route.gate.id()), request_id).map(Body::full);
                if let Some(grant) = grant {
                    grant.write(response.headers_mut());
                }
                response
            }
        };
        (Some(answer), None)
    }

    /// Gets a place in a pod, waiting for it if need be, and sends the request there; again elsewhere if not a byte of it
    /// could be sent.
    async fn call(
        &self,
        gate: &Arc<Gate>,
        target: &Target,
        policy: &Policy,
        peer: &Peer,
        request: &mut Option<Request<RequestBody>>,
        progress: Option<&Arc<Progress>>,
    ) -> Result<Answer, Stop> {
        let deadline = Instant::now() + policy.cold_start;
        let mut mirror = policy.mirror.as_ref();
        let mut copy = None;
        let mut entered = gate.enter(target, || request.as_ref().map_or(0, held_bytes));
        let mut unreachable = None;
        let mut cold = None;
        loop {
            let mut lease = match entered.map_err(Problem::from)? {
                Entered::Now(lease) => lease,
                // In a box, so that a request that does not wait is not larger for it.
                Entered::Later(ticket) => Box::pin(self.wait(ticket, deadline, unreachable.as_deref())).await?,
            };
            // A request that goes to a second pod waited for both.
            cold = lease.cold_start().or(cold);
            lease.set_cold_start(cold);
            if policy.judged {
                lease.give();
            }
            if let (Some(mirror), Some(request)) = (mirror.take(), request.as_mut()) {
                copy = self.mirror.copy(&lease, target, mirror, request);
            } else if copy.as_ref().is_some_and(|copy| copy.is_for(&lease)) {
                // Another pod took it than was thought, and it is not sent there twice.
                copy = None;
                if let Some(request) = request.as_mut() {
                    request.body_mut().end_copy();
                }
            }
            match forward(lease, request, &gate.context().dialer, policy, progress, &peer.alarm).await {
                Forwarded::Answered(response, connection, lease) => {
                    if let Some(copy) = copy {
                        self.mirror.answered(*copy, gate);
                    }
                    return Ok((response, connection, lease));
                }
                Forwarded::Unsent(mut lease, error) => {
                    self.metrics.retries.inc();
                    let (sequence, arrived) = (lease.sequence(), lease.arrived());
                    let late = Instant::now() >= deadline;
                    if late {
                        lease.fail();
                    }
                    lease.unreachable();
                    if late {
                        return Err(Problem::new(Kind::PodUnreachable, error).into());
                    }
                    unreachable = Some(error);
                    entered = gate.enter_again(target, || request.as_ref().map_or(0, held_bytes), sequence, arrived);
                }
                Forwarded::Broken(error) => return Err(Problem::new(Kind::BadAnswer, error).into()),
                Forwarded::Late => {
                    let detail = format!("the pod did not begin to answer within {:?}", policy.response);
                    return Err(Problem::new(Kind::ResponseTimeout, detail).into());
                }
                // It left, or what it sent of its body is malformed.
                Forwarded::ClientLeft => {
                    return Err(peer.heads.fault().map_or(Stop::Gone, |fault| Stop::Answer(fault.into())));
                }
            }
        }
    }

    async fn wait(&self, mut ticket: Ticket, deadline: Instant, unreachable: Option<&str>) -> Result<Lease, Stop> {
        // If the client leaves, this is dropped.
        let mut departure = Departure(Some(&self.metrics));
        let waited = tokio::select! {
            biased;
            lease = ticket.wait() => lease.map_err(|refusal| Stop::Answer(refusal.into())),
            () = sleep_until(deadline) => Err(Stop::Answer(match unreachable {
                Some(error) => {
                    ticket.fail();
                    Problem::new(Kind::PodUnreachable, error)
                }
                None => Problem::new(Kind::ColdStartTimeout, "no pod was ready within spec.timeouts.coldStart")
                    .because(ticket.obstacle()),
            })),
            () = self.closing.cancelled() => {
                let problem = Problem::new(Kind::ShuttingDown, "the request waited in an activator that is going");
                Err(Stop::Answer(problem.retry_after(std::time::Duration::from_secs(1))))
            }
        };
        departure.0 = None;
        waited
    }

    /// Makes the answer of a pod the answer to the client.
    fn pass(
        &self,
        (mut response, connection, mut lease): Answer,
        peer: &Peer,
        client: Option<OnUpgrade>,
        target: &Target,
        policy: &Policy,
        progress: Option<Arc<Progress>>,
    ) -> Result<Response<Body>, Problem> {
        let cold = lease.cold_start();
        let changes = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = response.headers().get(header::UPGRADE).filter(|_| changes).cloned();
        let change = client.filter(|_| changes).zip(protocol);
        let fault = if changes && change.is_none() {
            Err("the pod changed to another protocol without having been asked to")
        } else {
            headers::toward_client(response.headers_mut())
        };
        if let Err(fault) = fault {
            lease.fail();
            return Err(Problem::new(Kind::BadAnswer, fault));
        }
        lease.judge(response.status(), progress.as_ref().map(|progress| progress.last()));
        affinity::keep(lease.gate(), policy, target, &lease, response.headers_mut());
        let mut passed = if let Some((client, protocol)) = change {
            peer.heads.tunnel();
            upgrade::tunnel(&self.tunnels, client, hyper::upgrade::on(&mut response), lease, policy.idle);
            response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("upgrade"));
            response.headers_mut().insert(header::UPGRADE, protocol);
            response.map(|_| Body::empty())
        } else {
            let silence = policy.idle.zip(progress);
            response.map(|body| Body::pod(body, connection, lease, silence))
        };
        if let Some(cold) = cold {
            self.metrics.cold_starts.observe(cold.queue.as_secs_f64());
            server_timing::write(passed.headers_mut(), &cold);
        }
        Ok(passed)
    }
}

/// Rouse's own answer without its body to a HEAD over HTTP/2, for there hyper sends what it is given, and the client takes it
/// for a breach of the protocol.
fn own(mut response: Response<Body>, bodiless: bool) -> Response<Body> {
    if bodiless && let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        *response.body_mut() = Body::empty();
    }
    response
}

/// What a request holds of memory while it waits: its head, and what comes of its body before anybody asks for it.
fn held_bytes(request: &Request<RequestBody>) -> u64 {
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let target = request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    let most = if request.version() == Version::HTTP_2 { STREAM_WINDOW.into() } else { READ_AHEAD };
    let ahead = request.body().size_hint().upper().unwrap_or(most).min(most);
    (headers + target) as u64 + ahead
}
