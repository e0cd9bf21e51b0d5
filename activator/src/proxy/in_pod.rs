//! A request in its pod: the connection that carries it, and the permit that it holds.

use tokio::runtime::Handle;

use crate::{admit::Permit, endpoints::Connection};

/// A connection and a permit, until the response has ended.
///
/// Dropped before, the request is aborted. The pod works on it until it notices that, so the slot stays taken until the
/// pod has closed its side of the connection, or for a few seconds.
#[derive(Debug)]
pub(super) struct InPod(Option<(Connection, Permit)>);

impl InPod {
    pub(super) fn new(connection: Connection, permit: Permit) -> Self {
        Self(Some((connection, permit)))
    }

    /// Returns the permit, until it is taken.
    pub(super) fn permit(&mut self) -> Option<&mut Permit> {
        self.0.as_mut().map(|(_, permit)| permit)
    }

    /// Takes both out; what becomes of them is up to the caller.
    pub(super) fn take(&mut self) -> Option<(Connection, Permit)> {
        self.0.take()
    }

    /// Aborts the request.
    pub(super) fn abort(&mut self) {
        let Some((connection, permit)) = self.0.take() else { return };
        let Some(closing) = connection.abort() else { return };
        // Beyond the bound, and while the process exits, connection and slot are released at once.
        let bound = permit.breaker().context().aborting.clone().try_acquire_owned();
        let (Ok(bound), Ok(runtime)) = (bound, Handle::try_current()) else { return };
        runtime.spawn(async move {
            closing.await;
            drop((permit, bound));
        });
    }
}

impl Drop for InPod {
    fn drop(&mut self) {
        self.abort();
    }
}
