//! A place in a pod, and a place in the queue.

use std::sync::Arc;

use rouse_crds::pod::PodFailure;
use tokio::time::Instant;

use super::{
    cold::ColdStart,
    refusal::Refusal,
    state::{Gate, Lease, Ticket},
};
use crate::endpoints::Endpoint;

impl Lease {
    /// The pod.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The gate that it was had from.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Name of the revision whose pod it is.
    #[must_use]
    pub fn revision(&self) -> &str {
        self.account.revision()
    }

    /// Where its time went, if it waited for a pod to start.
    #[must_use]
    pub fn cold_start(&self) -> Option<ColdStart> {
        self.cold
    }

    /// Keeps what was known of it from an earlier pod.
    pub(crate) fn set_cold_start(&mut self, cold: Option<ColdStart>) {
        self.cold = cold;
    }

    /// Its place in the order of those that came.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When it came.
    #[must_use]
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// The pod has answered, so the revision works.
    pub fn answered(&mut self) {
        self.answered = true;
    }

    /// It is given to its pod now. From here on it counts how it ends, unless it just leaves.
    pub(crate) fn give(&mut self) {
        self.given = Some(Instant::now());
    }

    /// It ends with the head of an answer. What passed before the last byte of its body, if it has one, was the client's time.
    pub(crate) fn judge(&mut self, status: http::StatusCode, last_byte: Option<Instant>) {
        if let Some(given) = self.given.take() {
            let since = last_byte.map_or(given, |last| last.max(given));
            self.account.ended(status.as_u16() >= 500, Some(since.elapsed()));
        }
    }

    /// It ends without an answer that can be passed on.
    pub(crate) fn fail(&mut self) {
        if self.given.take().is_some() {
            self.account.ended(true, None);
        }
    }

    /// The pod cannot be connected to: it gets nothing until a probe succeeds.
    pub fn unreachable(self) {
        self.gate.set_aside(&self.endpoint);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.gate.release(&self.endpoint, &self.account, self.answered);
    }
}

impl Ticket {
    /// What keeps it waiting, if something is known: why no pod can be made, or why one that is there does not serve.
    #[must_use]
    pub fn obstacle(&self) -> Option<PodFailure> {
        self.gate.obstacle(self.sequence)
    }

    /// It is given up because its revision's pods cannot be connected to: that counts as a failure of the revision.
    pub(crate) fn fail(&self) {
        self.gate.fail(self.sequence);
    }

    /// Waits for a place in a pod. There is no limit of time in here; dropping the ticket ends the wait.
    ///
    /// # Errors
    ///
    /// If the request is turned away.
    pub async fn wait(&mut self) -> Result<Lease, Refusal> {
        let answer = (&mut self.answer).await;
        self.over = true;
        // The gate answers or lives; an answer that is dropped unsent means that it is being taken down.
        answer.unwrap_or(Err(Refusal::Deleted))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.over {
            self.gate.leave(self.sequence);
        }
    }
}
