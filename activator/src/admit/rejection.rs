//! Why a request is rejected before it reaches a pod.

use std::time::Duration;

use rouse_crds::pod::PodFailure;

use crate::metrics::RejectReason;

/// Why a request is rejected before it reaches a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The Function was deleted.
    Deleted,
    /// A cap on what is queued was reached.
    QueueFull(CapReached),
    /// The function has no pod, and the rate limit allows its wake too late only.
    Throttled {
        /// Whose rate was exceeded.
        scope: Scope,
        /// Time until the wake would be allowed.
        retry_after: Duration,
    },
    /// The function's pods fail to start.
    Failing {
        /// What the kubelet, the scheduler or the API server reports.
        failure: PodFailure,
        /// Time until the next wake.
        retry_after: Duration,
    },
}

/// The cap that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapReached {
    /// Whose cap it is.
    pub scope: Scope,
    /// What it is a cap on.
    pub measure: Measure,
}

/// Who a limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The Function, by its spec.
    Function,
    /// The namespace.
    Namespace,
    /// The whole activator.
    Process,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Requests.
    Requests,
    /// Bytes.
    Bytes,
    /// Memory of the process, as the overload manager sees it.
    Memory,
}

impl Scope {
    /// Returns the value of the metric label `scope`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Namespace => "namespace",
            Self::Process => "process",
        }
    }
}

impl Rejection {
    /// Returns the value of the metric label `reason`.
    #[must_use]
    pub fn reason(&self) -> RejectReason {
        match self {
            Self::Deleted => RejectReason::Deleted,
            Self::QueueFull(CapReached { scope, measure }) => match (scope, measure) {
                (Scope::Function, Measure::Requests) => RejectReason::FunctionRequests,
                (Scope::Function, Measure::Bytes) => RejectReason::FunctionBytes,
                (Scope::Namespace, Measure::Requests) => RejectReason::NamespaceRequests,
                (Scope::Namespace, Measure::Bytes) => RejectReason::NamespaceBytes,
                (Scope::Process, Measure::Requests) => RejectReason::ProcessRequests,
                (Scope::Process, Measure::Bytes) => RejectReason::ProcessBytes,
                (_, Measure::Memory) => RejectReason::ProcessMemory,
            },
            Self::Throttled { scope: Scope::Function, .. } => RejectReason::FunctionWakes,
            Self::Throttled { scope: Scope::Namespace, .. } => RejectReason::NamespaceWakes,
            Self::Throttled { scope: Scope::Process, .. } => RejectReason::ProcessWakes,
            Self::Failing { .. } => RejectReason::Failing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rejection_has_its_reason() {
        let full = |scope, measure| Rejection::QueueFull(CapReached { scope, measure });
        let throttled = |scope| Rejection::Throttled { scope, retry_after: Duration::ZERO };
        let failure = PodFailure { reason: "Error".into(), message: String::new() };
        let all = [
            Rejection::Deleted,
            full(Scope::Function, Measure::Requests),
            full(Scope::Function, Measure::Bytes),
            full(Scope::Namespace, Measure::Requests),
            full(Scope::Namespace, Measure::Bytes),
            full(Scope::Process, Measure::Requests),
            full(Scope::Process, Measure::Bytes),
            full(Scope::Process, Measure::Memory),
            throttled(Scope::Function),
            throttled(Scope::Namespace),
            throttled(Scope::Process),
            Rejection::Failing { failure, retry_after: Duration::ZERO },
        ];
        assert!(all.iter().map(Rejection::reason).eq(RejectReason::ALL));
    }
}
