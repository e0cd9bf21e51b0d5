//! Admission: who may go to a pod now, who waits, and who is turned away.
//!
//! One [`Gate`] stands for one Function (of one `uid`). Everything it decides, it decides under its own short lock, so the
//! limit of a pod holds at every moment and no wake-up is lost; nothing is awaited there.

mod arrive;
mod budget;
mod cold;
mod gate;
mod health;
mod inner;
mod lease;
mod namespace;
mod pods;
mod policy;
mod refusal;
mod revision;
mod slot;
mod step;
mod target;
mod throttle;
mod traffic;

pub use budget::{Budget, Caps, Held};
pub use cold::ColdStart;
pub use gate::{Entered, FunctionId, Gate};
pub use lease::{Lease, Ticket};
pub use namespace::Namespace;
pub use policy::{MirrorTo, Policy, TellApart};
pub use refusal::{Full, Measure, Refusal, Scope};
pub use step::Step;
pub use target::{Affinity, Target};
pub use throttle::Rate;

#[cfg(test)]
mod tests;
