//! Read-your-writes for the status: a status that was written and has not come back through the watch yet.

use rouse_crds::function::FunctionStatus;

/// A status that was written and has not come back through the watch yet.
#[derive(Clone, Debug)]
pub struct LastWritten {
    /// The `resourceVersion` that the cache had.
    pub seen: Option<String>,
    /// The one that the write made.
    pub made: Option<String>,
    /// The status.
    pub status: FunctionStatus,
}

impl LastWritten {
    /// Whether a Function of this `resourceVersion` is from before the write.
    ///
    /// The write of another may come in between, and through the watch before this one: then the status that it brings is the
    /// old one. Versions of one resource are numbers that grow, which Kubernetes promises since 1.35 and has held to before;
    /// where they are something else, only the version that was seen is known to be old.
    pub fn is_ahead_of(&self, version: Option<&String>) -> bool {
        let number = |version: Option<&String>| version?.parse::<u128>().ok();
        match (number(self.made.as_ref()), number(version)) {
            (Some(made), Some(version)) => version < made,
            _ => self.seen.as_ref() == version,
        }
    }
}
