//! Values of the label `reason` of rejected requests.

/// Why a request was rejected before it reached a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// The Function was deleted.
    Deleted,
    /// The Function's cap on queued requests.
    FunctionRequests,
    /// The Function's cap on queued bytes.
    FunctionBytes,
    /// The namespace's cap on queued requests.
    NamespaceRequests,
    /// The namespace's cap on queued bytes.
    NamespaceBytes,
    /// The process's cap on queued requests.
    ProcessRequests,
    /// The process's cap on queued bytes.
    ProcessBytes,
    /// The process has little memory left.
    ProcessMemory,
    /// The Function's rate limit of wakes.
    FunctionWakes,
    /// The namespace's rate limit of wakes.
    NamespaceWakes,
    /// The process's rate limit of wakes.
    ProcessWakes,
    /// The Function's pods fail to start.
    Failing,
}

impl RejectReason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 12] = [
        Self::Deleted,
        Self::FunctionRequests,
        Self::FunctionBytes,
        Self::NamespaceRequests,
        Self::NamespaceBytes,
        Self::ProcessRequests,
        Self::ProcessBytes,
        Self::ProcessMemory,
        Self::FunctionWakes,
        Self::NamespaceWakes,
        Self::ProcessWakes,
        Self::Failing,
    ];

    /// Returns the value of the label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::FunctionRequests => "function-requests",
            Self::FunctionBytes => "function-bytes",
            Self::NamespaceRequests => "namespace-requests",
            Self::NamespaceBytes => "namespace-bytes",
            Self::ProcessRequests => "process-requests",
            Self::ProcessBytes => "process-bytes",
            Self::ProcessMemory => "process-memory",
            Self::FunctionWakes => "function-wakes",
            Self::NamespaceWakes => "namespace-wakes",
            Self::ProcessWakes => "process-wakes",
            Self::Failing => "failing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counters are an array that is indexed by the declaration order.
    #[test]
    fn all_reasons_are_in_declaration_order() {
        assert!(RejectReason::ALL.iter().enumerate().all(|(at, reason)| *reason as usize == at));
    }
}
