//! The vocabulary of Rouse: the [`Function`] custom resource with its defaults, rules and status ([`function`]); the
//! names of labels, annotations, conditions and reasons ([`names`], [`conditions`]); the hosts a function answers to
//! ([`hosts`]); the wire type of the demand stream ([`demand`]); and the small part of a Pod that Rouse reads ([`pod`]).
//!
//! Nothing here does I/O.
#![allow(unreachable_pub, reason = "kube's schema derive writes `pub` items into a private scope")]

pub mod conditions;
pub mod demand;
pub mod duration;
pub mod function;
pub mod hosts;
pub mod names;
pub mod percent;
pub mod pod;
pub mod quantity;

pub use duration::Duration;
pub use function::{Function, FunctionSpec};
pub use percent::Percent;
