//! Why a request is turned away without having reached a pod.

use std::time::Duration;

use rouse_crds::pod::PodFailure;

use crate::metrics::Rejection;

/// Why a request is turned away without having reached a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its Function is gone.
    Deleted,
    /// As many wait as may.
    QueueFull(Full),
    /// The function has no pod, and was or its neighbours were woken so often that its turn would come too late.
    Throttled {
        /// Whose wakes there were too many of: [`Scope::Function`] or [`Scope::Namespace`].
        scope: Scope,
        /// When its turn could come.
        retry_after: Duration,
    },
    /// The function's pods do not start.
    Failing {
        /// What the kubelet, the scheduler or the API server says.
        failure: PodFailure,
        /// When another try makes sense.
        retry_after: Duration,
    },
}

/// Which bound on what waits was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Whose.
    pub scope: Scope,
    /// In what.
    pub measure: Measure,
}

/// Whose bound it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The Function's own, as its spec says.
    Function,
    /// Its namespace's.
    Namespace,
    /// The whole activator's.
    Process,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Requests.
    Requests,
    /// Bytes.
    Bytes,
}

impl Scope {
    /// A word for metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Namespace => "namespace",
            Self::Process => "process",
        }
    }
}

impl Refusal {
    /// What it counts as.
    #[must_use]
    pub fn reason(&self) -> Rejection {
        match self {
            Self::Deleted => Rejection::Deleted,
            Self::QueueFull(Full { scope, measure }) => match (scope, measure) {
                (Scope::Function, Measure::Requests) => Rejection::FunctionRequests,
                (Scope::Function, Measure::Bytes) => Rejection::FunctionBytes,
                (Scope::Namespace, Measure::Requests) => Rejection::NamespaceRequests,
                (Scope::Namespace, Measure::Bytes) => Rejection::NamespaceBytes,
                (Scope::Process, Measure::Requests) => Rejection::ProcessRequests,
                (Scope::Process, Measure::Bytes) => Rejection::ProcessBytes,
            },
            Self::Throttled { scope: Scope::Function, .. } => Rejection::FunctionWakes,
            Self::Throttled { .. } => Rejection::NamespaceWakes,
            Self::Failing { .. } => Rejection::Failing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_word() {
        let full = |scope, measure| Refusal::QueueFull(Full { scope, measure });
        let throttled = |scope| Refusal::Throttled { scope, retry_after: Duration::ZERO };
        let failure = PodFailure { reason: "Error".into(), message: String::new() };
        let all = [
            Refusal::Deleted,
            full(Scope::Function, Measure::Requests),
            full(Scope::Function, Measure::Bytes),
            full(Scope::Namespace, Measure::Requests),
            full(Scope::Namespace, Measure::Bytes),
            full(Scope::Process, Measure::Requests),
            full(Scope::Process, Measure::Bytes),
            throttled(Scope::Function),
            throttled(Scope::Namespace),
            Refusal::Failing { failure, retry_after: Duration::ZERO },
        ];
        assert!(all.iter().map(Refusal::reason).eq(Rejection::ALL));
    }
}
