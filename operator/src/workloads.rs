//! What both flows know of a Function's workloads: the state of its revisions ([`observe`]) and the results of their
//! requests ([`outcomes`]).

pub mod observe;
pub mod outcomes;
