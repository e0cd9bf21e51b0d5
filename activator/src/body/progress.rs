//! Progress of a request: when a byte last passed in either direction.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Time of the last byte in either direction.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    last_ms: AtomicU64,
    /// The whole request body has been read.
    whole: AtomicBool,
    /// The request body has failed.
    failed: AtomicBool,
}

impl Progress {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            last_ms: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        })
    }

    pub(crate) fn touch(&self) {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(passed, Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }

    /// Records that the pod has the whole request.
    pub(super) fn end(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// Whether the pod has the whole request, so that only its response is waited for.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// Records that the client has aborted its body, or sent a malformed one.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Whether the request body has failed, so that the pod is not to blame for the loss of the request.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}
