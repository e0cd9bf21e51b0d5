//! Admission: which request is forwarded now, which is queued, and which is rejected.
//!
//! There is one [`Breaker`] per Function (per `uid`): a queue in front of its pods that enforces their concurrency
//! limit. Every decision is made under its own short lock, so the limit holds at any time and no wake-up is lost.
//! Nothing is awaited under the lock.

mod admission;
mod breaker;
mod budget;
mod cold_start;
mod context;
mod dispatch;
mod health;
mod namespace;
mod permit;
mod pod_events;
mod pod_tracker;
mod policy;
mod rejection;
mod revision;
mod state;
mod step;
mod target;
mod traffic;
mod wake_rate;
mod wake_task;
mod wake_tokens;

pub use budget::{Budget, Caps, QueueReservation};
pub use cold_start::ColdStart;
pub use context::{Bounds, Context};
pub use namespace::Namespace;
pub use policy::{AffinityKey, MirrorTarget, Policy};
pub use rejection::{CapReached, Measure, Rejection, Scope};
pub use state::{Admission, Breaker, Permit, Ticket};
pub use step::Step;
pub use target::{Affinity, Target};

#[cfg(test)]
mod tests;
