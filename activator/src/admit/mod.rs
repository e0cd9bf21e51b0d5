//! Admission: who may go to a pod now, who waits, and who is turned away.
//!
//! One [`Gate`] stands for one Function (of one `uid`). Everything it decides, it decides under its own short lock, so the
//! limit of a pod holds at every moment and no wake-up is lost; nothing is awaited there.

mod bytes;
mod cold;
mod gate;
mod health;
mod inner;
mod lease;
mod pods;
mod policy;
mod refusal;
mod revision;
mod slot;
mod step;

pub use bytes::{Budget, Held};
pub use cold::ColdStart;
pub use gate::{Entered, FunctionId, Gate};
pub use lease::{Lease, Ticket};
pub use policy::Policy;
pub use refusal::{Full, Refusal};
pub use step::Step;

#[cfg(test)]
mod tests;
