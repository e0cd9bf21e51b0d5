//! Types that the operator and the activators share: the [`Function`] custom resource with its defaults, validation and
//! status ([`function`]); names of labels, annotations, conditions and reasons ([`names`], [`conditions`]); host
//! ownership ([`hosts`]); the wire format of the demand stream ([`demand`]); and the fields of a Pod that Rouse reads
//! ([`pod`]).
//!
//! This crate does no I/O.
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
