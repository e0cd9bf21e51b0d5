//! Key of a Function.

use std::fmt;

use kube::Resource;

/// Namespace and name of a Function: the key of every queue, cache and table of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionKey {
    /// Namespace of the Function and of its objects.
    pub namespace: String,
    /// Name of the Function.
    pub name: String,
}

impl FunctionKey {
    /// Creates the key of the Function `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// Returns the namespace and name of an object; `None` if it lacks one of them.
    pub fn of(object: &impl Resource) -> Option<Self> {
        let metadata = object.meta();
        Some(Self::new(metadata.namespace.as_deref()?, metadata.name.as_deref()?))
    }
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
