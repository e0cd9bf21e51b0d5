//! Traffic mirroring: copies of requests that are sent to a tag.
//!
//! A client never waits for a mirrored request and sees nothing of it. It is sent once its whole body has passed to the
//! pod that serves the original, or not at all.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use rand::Rng as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout, timeout_at},
};

use super::{
    forward::{Forwarded, forward},
    response_body::Body,
};
use crate::{
    admit::{Admission, Breaker, MirrorTarget, Permit, Policy, Target},
    body::{BodyTee, CopiedBody, LONGEST, RequestBody},
    downstream::ConnectionTimer,
    metrics::Metrics,
};

/// On every mirrored request, so that a function can tell.
const ROUSE_MIRROR: HeaderName = HeaderName::from_static("rouse-mirror");

/// Maximum number of mirrored requests in flight per function.
const MAX_PER_FUNCTION: u32 = 32;
/// Maximum number of mirrored requests in flight in the process.
const MAX_PER_PROCESS: usize = 256;
/// How long the body of the original may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of the response, in bytes and in time, so that its connection can be reused.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends mirrored requests.
#[derive(Debug)]
pub(super) struct Mirror {
    metrics: Arc<Metrics>,
    permit: Arc<Semaphore>,
}

/// Result of a mirrored request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MirrorResult {
    /// A pod responded.
    Responded,
    /// The request was sent to a pod, which did not respond.
    Failed,
    /// No pod served the request in time.
    NoPod,
    /// The maximum number is in flight.
    Busy,
    /// The body is too long, or took too long.
    TooLong,
    /// The original request was aborted.
    Aborted,
}

/// A slot for one mirrored request.
struct MirrorPermit {
    breaker: Arc<Breaker>,
    _process_permit: OwnedSemaphorePermit,
}

/// A mirrored request whose original is being sent.
#[derive(Debug)]
pub(super) struct MirrorCopy {
    revision: Arc<str>,
    /// The copy of a request without a body: it is sent after the response to the original. A copy with a body is sent
    /// once the body is complete.
    kept: Option<Request<RequestBody>>,
}

/// A body that is being copied. The original body owns the tee, so a drop of it is noticed here.
type PendingBody = (Weak<BodyTee>, oneshot::Receiver<Option<CopiedBody>>);

impl Mirror {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, permit: Arc::new(Semaphore::new(MAX_PER_PROCESS)) }
    }

    /// Starts a copy of a request that is sent to its pod now, if it is to be mirrored. Never waits.
    pub(super) fn copy(
        &self,
        permit: &Permit,
        target: &Target,
        to: &MirrorTarget,
        request: &mut Request<RequestBody>,
    ) -> Option<Box<MirrorCopy>> {
        let wanted = matches!(target, Target::Traffic { .. })
            && !request.headers().contains_key(header::UPGRADE)
            && (to.percent >= 100 || rand::rng().random_range(0..100) < to.percent);
        if !wanted {
            return None;
        }
        let breaker = permit.breaker();
        // A tag without a revision gets nothing, and a request that goes to the tag's revision by its traffic is not
        // sent there twice.
        let revision = breaker.tagged(&to.tag).filter(|revision| **revision != *permit.revision())?;
        if request.body().size_hint().lower() > LONGEST {
            self.count(MirrorResult::TooLong);
            return None;
        }
        let mut copy = Request::new(RequestBody::none());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        copy.headers_mut().clone_from(request.headers());
        copy.headers_mut().insert(ROUSE_MIRROR, HeaderValue::from_static("true"));
        if request.body().is_end_stream() {
            return Some(Box::new(MirrorCopy { revision, kept: Some(copy) }));
        }
        let Some(permit) = self.permit(breaker) else {
            self.count(MirrorResult::Busy);
            return None;
        };
        let (tee, copied) = BodyTee::new();
        let pending = (Arc::downgrade(&tee), copied);
        request.body_mut().copy_to(tee);
        self.spawn(permit, revision.clone(), copy, Some(pending));
        Some(Box::new(MirrorCopy { revision, kept: None }))
    }

    /// Sends the copy of a request without a body, now that a pod responded to the original.
    pub(super) fn pod_responded(&self, started: MirrorCopy, breaker: &Arc<Breaker>) {
        let MirrorCopy { revision, kept: Some(copy) } = started else { return };
        match self.permit(breaker) {
            Some(permit) => self.spawn(permit, revision, copy, None),
            None => self.count(MirrorResult::Busy),
        }
    }

    fn spawn(
        &self,
        permit: MirrorPermit,
        revision: Arc<str>,
        copy: Request<RequestBody>,
        pending: Option<PendingBody>,
    ) {
        let metrics = self.metrics.clone();
        // Bounded by its permit; its timeouts end it.
        tokio::spawn(async move {
            let result = send(&permit.breaker, revision, copy, pending).await;
            metrics.record_mirrored(result.label());
        });
    }

    fn count(&self, result: MirrorResult) {
        self.metrics.record_mirrored(result.label());
    }

    fn permit(&self, breaker: &Arc<Breaker>) -> Option<MirrorPermit> {
        let process_permit = self.permit.clone().try_acquire_owned().ok()?;
        let more = |n: u32| (n < MAX_PER_FUNCTION).then_some(n + 1);
        breaker.mirrored().fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(MirrorPermit { breaker: breaker.clone(), _process_permit: process_permit })
    }
}

impl MirrorCopy {
    /// Whether the original goes to the mirror's own revision.
    pub(super) fn is_for(&self, permit: &Permit) -> bool {
        *self.revision == *permit.revision()
    }
}

impl Drop for MirrorPermit {
    fn drop(&mut self) {
        self.breaker.mirrored().fetch_sub(1, Ordering::Relaxed);
    }
}

impl MirrorResult {
    /// Returns the value of the metric label `result`.
    fn label(self) -> &'static str {
        match self {
            Self::Responded => "responded",
            Self::Failed => "failed",
            Self::NoPod => "no-pod",
            Self::Busy => "busy",
            Self::TooLong => "too-long",
            Self::Aborted => "aborted",
        }
    }
}

/// Sends a copy once its body is complete, and reads the response.
async fn send(
    breaker: &Arc<Breaker>,
    revision: Arc<str>,
    mut copy: Request<RequestBody>,
    pending: Option<PendingBody>,
) -> MirrorResult {
    if let Some((tee, copied)) = pending {
        match timeout(BODY_TIMEOUT, copied).await {
            Ok(Ok(Some(copied))) => *copy.body_mut() = RequestBody::copied(copied),
            Ok(Ok(None)) => return MirrorResult::TooLong,
            Ok(Err(_)) => return MirrorResult::Aborted,
            Err(_) => {
                if let Some(tee) = tee.upgrade() {
                    tee.cancel();
                }
                return MirrorResult::TooLong;
            }
        }
    }
    let policy = breaker.policy();
    let deadline = Instant::now() + policy.cold_start;
    let admission = breaker.admit(&Target::Mirror(revision), || 0);
    let permit = match admission {
        Ok(Admission::Granted(permit)) => Some(permit),
        Ok(Admission::Queued(mut ticket)) => timeout_at(deadline, ticket.wait()).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    let Some(mut permit) = permit else { return MirrorResult::NoPod };
    if policy.count_outcomes {
        permit.mark_sent();
    }
    read_response(breaker, &policy, permit, copy).await
}

async fn read_response(
    breaker: &Arc<Breaker>,
    policy: &Policy,
    permit: Permit,
    copy: Request<RequestBody>,
) -> MirrorResult {
    let timer = ConnectionTimer::default();
    match forward(permit, &mut Some(copy), &breaker.context().dialer, policy, None, &timer).await {
        Forwarded::Response(response, mut in_pod) => {
            if let Some(permit) = in_pod.permit() {
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    permit.record_failure();
                    return MirrorResult::Failed;
                }
                permit.record_outcome(response.status(), None);
            }
            let mut body = Body::pod(response.into_body(), in_pod, None);
            let read = async {
                let mut read = 0;
                while let Some(Ok(frame)) = body.frame().await
                    && read <= MAX_RESPONSE_BYTES
                {
                    read += frame.data_ref().map_or(0, bytes::Bytes::len);
                }
            };
            // A longer response is dropped, and its connection with it.
            timeout(RESPONSE_TIMEOUT, read).await.ok();
            MirrorResult::Responded
        }
        Forwarded::ConnectFailed(mut permit, _) => {
            permit.record_failure();
            permit.connect_failed();
            MirrorResult::Failed
        }
        Forwarded::NoStream(permit) => {
            permit.put_back();
            MirrorResult::NoPod
        }
        Forwarded::Broken(_) | Forwarded::TimedOut | Forwarded::ClientTooSlow | Forwarded::ClientAborted => {
            MirrorResult::Failed
        }
    }
}
