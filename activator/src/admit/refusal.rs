//! Why a request is turned away without having reached a pod.

use std::time::Duration;

use rouse_crds::pod::PodFailure;

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

impl Refusal {
    /// All that [`Refusal::word`] can be.
    pub const WORDS: [&str; 10] = [
        "deleted",
        "function-requests",
        "function-bytes",
        "namespace-requests",
        "namespace-bytes",
        "process-requests",
        "process-bytes",
        "function-wakes",
        "namespace-wakes",
        "failing",
    ];

    /// Its place in [`Refusal::WORDS`].
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Self::Deleted => 0,
            Self::QueueFull(Full { scope, measure }) => {
                1 + 2 * (*scope as usize) + usize::from(*measure == Measure::Bytes)
            }
            Self::Throttled { scope: Scope::Function, .. } => 7,
            Self::Throttled { .. } => 8,
            Self::Failing { .. } => 9,
        }
    }

    /// A word for metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        Self::WORDS[self.index()]
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
        assert!(all.iter().map(Refusal::word).eq(Refusal::WORDS));
    }
}
