//! Permits and tickets: a concurrency slot of a pod, and a position in the queue.

use std::sync::Arc;

use rouse_crds::pod::PodFailure;
use tokio::time::Instant;

use super::{
    cold_start::ColdStart,
    rejection::Rejection,
    state::{Breaker, Permit, Ticket},
};
use crate::endpoints::Endpoint;

impl Permit {
    /// Returns the endpoint of the pod.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Returns the breaker that granted it.
    #[must_use]
    pub fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// Returns the name of the pod's revision.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.account.revision()
    }

    /// Returns the phases of the cold start, if the request waited for a pod to start.
    #[must_use]
    pub fn cold_start(&self) -> Option<ColdStart> {
        self.cold.as_deref().copied()
    }

    /// Keeps the phases that were measured before an earlier pod could not be connected to.
    pub(crate) fn set_cold_start(&mut self, cold: Option<ColdStart>) {
        self.cold = cold.map(Box::new);
    }

    /// Returns the position in the order of arrival.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns the time of arrival.
    #[must_use]
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Records that the pod has responded, which clears the revision's failures.
    pub fn mark_responded(&mut self) {
        self.responded = true;
    }

    /// Records that the request is sent to the pod. From here on its outcome is counted, unless the client aborts it.
    pub(crate) fn mark_sent(&mut self) {
        self.sent_at = Some(Instant::now());
    }

    /// Counts the outcome by the head of the response. The time before the last byte of the request body is the
    /// client's, and is not part of the latency.
    pub(crate) fn record_outcome(&mut self, status: http::StatusCode, last_byte: Option<Instant>) {
        if let Some(sent_at) = self.sent_at.take() {
            let since = last_byte.map_or(sent_at, |last| last.max(sent_at));
            self.account.record_outcome(status.as_u16() >= 500, Some(since.elapsed()));
        }
    }

    /// Counts the outcome of a request without a usable response.
    pub(crate) fn record_failure(&mut self) {
        if self.sent_at.take().is_some() {
            self.account.record_outcome(true, None);
        }
    }

    /// Returns the permit without having sent the request. The pod stays eligible.
    pub(crate) fn put_back(mut self) {
        self.unsent = true;
    }

    /// Ejects the pod after a failed connect: it gets no requests until a probe succeeds. Nothing of the request was
    /// sent.
    pub fn connect_failed(mut self) {
        self.unsent = true;
        self.pod_unreachable();
    }

    /// Ejects the pod: it gets no requests until a probe succeeds.
    pub(crate) fn pod_unreachable(&self) {
        self.breaker.mark_unreachable(&self.endpoint);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = Instant::now();
        let in_pod = (!self.unsent).then(|| now.saturating_duration_since(self.granted));
        self.breaker.release(&self.endpoint, &self.account, self.responded, now, in_pod);
    }
}

impl Ticket {
    /// Returns why no pod serves the request yet, if that is known: pods cannot be created, or one fails.
    #[must_use]
    pub fn blocked_by(&self) -> Option<PodFailure> {
        self.breaker.blocked_by(self.sequence)
    }

    /// Counts the request as failed, because the pods of its revision cannot be connected to.
    pub(crate) fn record_failure(&self) {
        self.breaker.record_failure(self.sequence);
    }

    /// Waits for a permit. There is no timeout in here; dropping the ticket leaves the queue.
    ///
    /// # Errors
    ///
    /// If the request is rejected.
    pub async fn wait(&mut self) -> Result<Permit, Rejection> {
        let granted = (&mut self.receiver).await;
        self.done = true;
        // The sender is dropped without a value only when the breaker is dropped.
        granted.unwrap_or(Err(Rejection::Deleted))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            self.breaker.leave(self.sequence);
        }
    }
}
