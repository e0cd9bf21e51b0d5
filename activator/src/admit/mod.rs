//! Admission: who may go to a pod now, who waits, and who is turned away.
//!
//! One [`Gate`] stands for one Function (of one `uid`). Everything it decides, it decides under its own short lock, so the
//! limit of a pod holds at every moment and no wake-up is lost; nothing is awaited there.

mod arrive;
mod budget;
mod cold;
mod context;
mod dispatch;
mod gate;
mod health;
mod lease;
mod namespace;
mod pods;
mod policy;
mod refusal;
mod revision;
mod slot;
mod state;
mod step;
mod target;
mod traffic;
mod wake_task;

pub use budget::{Budget, Caps, Held};
pub use cold::ColdStart;
pub use context::{Bounds, Context};
pub use namespace::Namespace;
pub use policy::{MirrorTo, Policy, TellApart};
pub use refusal::{Full, Measure, Refusal, Scope};
pub use state::{Entered, FunctionId, Gate, Lease, Ticket};
pub use step::Step;
pub use target::{Affinity, Target};

#[cfg(test)]
mod tests;
