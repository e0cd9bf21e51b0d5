//! Identity of a Function.

use std::fmt;

use rouse_crds::hosts::ownership::Claimant;

/// Namespace and name of a Function.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FunctionKey {
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

/// Identity of a Function. One that was deleted and recreated has another `uid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionId {
    /// Namespace and name.
    pub key: FunctionKey,
    /// `metadata.uid`.
    pub uid: Box<str>,
}

impl FunctionKey {
    /// Puts a key together.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl From<&Claimant> for FunctionKey {
    fn from(claimant: &Claimant) -> Self {
        Self { namespace: claimant.namespace.clone(), name: claimant.name.clone() }
    }
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key.fmt(f)
    }
}
