//! Which Function something is about.

use std::fmt;

/// Namespace and name of a Function: the key of every queue, cache and table here.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionKey {
    /// Namespace of the Function and of everything it owns.
    pub namespace: String,
    /// Name of the Function.
    pub name: String,
}

impl FunctionKey {
    /// The key of the Function `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
