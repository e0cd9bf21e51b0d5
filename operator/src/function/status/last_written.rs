//! Read-your-writes for the status: a status that was written and has not come back through the watch yet.

use rouse_crds::function::FunctionStatus;

/// A written status that the watch has not delivered yet.
#[derive(Clone, Debug)]
pub struct LastWritten {
    /// `resourceVersion` in the cache at the time of the write.
    pub seen: Option<String>,
    /// `resourceVersion` that the write produced.
    pub made: Option<String>,
    /// Status that was written.
    pub status: FunctionStatus,
}

impl LastWritten {
    /// Returns whether a Function with this `resourceVersion` is older than the write.
    ///
    /// The watch may deliver the write of another client first, which still has the old status. Versions of one
    /// resource are increasing numbers, which Kubernetes guarantees since 1.35 and did in practice before. If they are
    /// not numbers, only the version in the cache at the time of the write is known to be old.
    pub fn is_ahead_of(&self, version: Option<&String>) -> bool {
        let number = |version: Option<&String>| version?.parse::<u128>().ok();
        match (number(self.made.as_ref()), number(version)) {
            (Some(made), Some(version)) => version < made,
            _ => self.seen.as_ref() == version,
        }
    }
}
