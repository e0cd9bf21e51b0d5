//! Copies of requests that go to a tag as well.
//!
//! A copy is for its own sake: the caller never waits for it, and nothing that it does is seen by the caller. It is sent when
//! all of its body has passed to the pod that answers, or not at all.

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
    admit::{Entered, Gate, Lease, MirrorTo, Policy, Target},
    body::{Copied, Copying, LONGEST, RequestBody},
    downstream::Alarm,
    metrics::Metrics,
};

/// On every copy, so that a function can tell.
const ROUSE_MIRROR: HeaderName = HeaderName::from_static("rouse-mirror");

/// Copies of one function that are under way at once.
const OF_FUNCTION: u32 = 32;
/// Copies that are under way at once in all.
const OF_PROCESS: usize = 256;
/// How long a body may take to pass.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// What is read of the answer to a copy, in bytes and in time, so that its connection can be used again.
const ANSWER: usize = 1 << 20;
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Sends copies.
#[derive(Debug)]
pub(super) struct Mirror {
    metrics: Arc<Metrics>,
    room: Arc<Semaphore>,
}

/// What became of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// A pod has answered.
    Answered,
    /// A pod was given it and has not answered.
    Failed,
    /// No pod could be had for it.
    NoPod,
    /// As many are under way as may be.
    Busy,
    /// Its body is too long, or took too long.
    TooLong,
    /// The request that it is a copy of broke off.
    BrokenOff,
}

/// Room for one copy.
struct Room {
    gate: Arc<Gate>,
    _of_process: OwnedSemaphorePermit,
}

/// A copy of a request that is on its way to its pod.
#[derive(Debug)]
pub(super) struct Begun {
    revision: Arc<str>,
    /// The copy of one without a body, where only an answer says that a pod has it. With a body the copy goes by itself.
    kept: Option<Request<RequestBody>>,
}

/// A body that is being copied. The body itself holds on to the copy, so that this hears when it is gone.
type Coming = (Weak<Copying>, oneshot::Receiver<Option<Copied>>);

impl Mirror {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, room: Arc::new(Semaphore::new(OF_PROCESS)) }
    }

    /// Begins a copy of a request that goes to its pod now, if it is one of those that are to be copied. Waits for nothing.
    pub(super) fn copy(
        &self,
        lease: &Lease,
        target: &Target,
        to: &MirrorTo,
        request: &mut Request<RequestBody>,
    ) -> Option<Box<Begun>> {
        let wanted = matches!(target, Target::Shares { .. })
            && !request.headers().contains_key(header::UPGRADE)
            && (to.percent >= 100 || rand::rng().random_range(0..100) < to.percent);
        if !wanted {
            return None;
        }
        let gate = lease.gate();
        // A tag that leads nowhere yet gets nothing, and what goes there by its share is not sent there twice.
        let revision = gate.tagged(&to.tag).filter(|revision| **revision != *lease.revision())?;
        if request.body().size_hint().lower() > LONGEST {
            self.count(Fate::TooLong);
            return None;
        }
        let mut copy = Request::new(RequestBody::none());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        copy.headers_mut().clone_from(request.headers());
        copy.headers_mut().insert(ROUSE_MIRROR, HeaderValue::from_static("true"));
        if request.body().is_end_stream() {
            return Some(Box::new(Begun { revision, kept: Some(copy) }));
        }
        let Some(room) = self.room(gate) else {
            self.count(Fate::Busy);
            return None;
        };
        let (copying, copied) = Copying::new();
        let coming = (Arc::downgrade(&copying), copied);
        request.body_mut().copy_to(copying);
        self.spawn(room, revision.clone(), copy, Some(coming));
        Some(Box::new(Begun { revision, kept: None }))
    }

    /// A pod has answered the request itself.
    pub(super) fn answered(&self, begun: Begun, gate: &Arc<Gate>) {
        let Begun { revision, kept: Some(copy) } = begun else { return };
        match self.room(gate) {
            Some(room) => self.spawn(room, revision, copy, None),
            None => self.count(Fate::Busy),
        }
    }

    fn spawn(&self, room: Room, revision: Arc<str>, copy: Request<RequestBody>, coming: Option<Coming>) {
        let metrics = self.metrics.clone();
        // Bounded by the room that it has; it ends by its limits of time.
        tokio::spawn(async move {
            let fate = send(&room.gate, revision, copy, coming).await;
            metrics.mirrored(fate.word());
        });
    }

    fn count(&self, fate: Fate) {
        self.metrics.mirrored(fate.word());
    }

    fn room(&self, gate: &Arc<Gate>) -> Option<Room> {
        let of_process = self.room.clone().try_acquire_owned().ok()?;
        let more = |n: u32| (n < OF_FUNCTION).then_some(n + 1);
        gate.copies().fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Room { gate: gate.clone(), _of_process: of_process })
    }
}

impl Begun {
    /// Whether the request itself goes where its copy would go.
    pub(super) fn is_for(&self, lease: &Lease) -> bool {
        *self.revision == *lease.revision()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.gate.copies().fetch_sub(1, Ordering::Relaxed);
    }
}

impl Fate {
    /// A word for metrics.
    fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::NoPod => "no-pod",
            Self::Busy => "busy",
            Self::TooLong => "too-long",
            Self::BrokenOff => "broken-off",
        }
    }
}

/// Sends a copy once all of it is there, and reads its answer.
async fn send(gate: &Arc<Gate>, revision: Arc<str>, mut copy: Request<RequestBody>, coming: Option<Coming>) -> Fate {
    if let Some((copying, copied)) = coming {
        match timeout(BODY_LIMIT, copied).await {
            Ok(Ok(Some(copied))) => *copy.body_mut() = RequestBody::copied(copied),
            Ok(Ok(None)) => return Fate::TooLong,
            Ok(Err(_)) => return Fate::BrokenOff,
            Err(_) => {
                if let Some(copying) = copying.upgrade() {
                    copying.give_up();
                }
                return Fate::TooLong;
            }
        }
    }
    let policy = gate.policy();
    let deadline = Instant::now() + policy.cold_start;
    let entered = gate.enter(&Target::Copy(revision), || 0);
    let lease = match entered {
        Ok(Entered::Now(lease)) => Some(lease),
        Ok(Entered::Later(mut ticket)) => timeout_at(deadline, ticket.wait()).await.ok().and_then(Result::ok),
        Err(_) => None,
    };
    let Some(mut lease) = lease else { return Fate::NoPod };
    if policy.judged {
        lease.give();
    }
    answer(gate, &policy, lease, copy).await
}

async fn answer(gate: &Arc<Gate>, policy: &Policy, lease: Lease, copy: Request<RequestBody>) -> Fate {
    let alarm = Alarm::default();
    match forward(lease, &mut Some(copy), &gate.context().dialer, policy, None, &alarm).await {
        Forwarded::Answered(response, connection, mut lease) => {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                lease.fail();
                return Fate::Failed;
            }
            lease.judge(response.status(), None);
            let mut body = Body::pod(response.into_body(), connection, lease, None);
            let read = async {
                let mut read = 0;
                while let Some(Ok(frame)) = body.frame().await
                    && read <= ANSWER
                {
                    read += frame.data_ref().map_or(0, bytes::Bytes::len);
                }
            };
            // What is longer ends here, and its connection with it.
            timeout(ANSWER_LIMIT, read).await.ok();
            Fate::Answered
        }
        Forwarded::Unsent(mut lease, _) => {
            lease.fail();
            lease.unreachable();
            Fate::Failed
        }
        Forwarded::Broken(_) | Forwarded::Late | Forwarded::ClientLeft => Fate::Failed,
    }
}
