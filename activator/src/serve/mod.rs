//! The server's side: listeners, connections, and the admin endpoints.

mod admin;
mod heads;
mod listener;
mod socket;

pub use admin::{Admin, router as admin_router};
pub use heads::HeadVerdict;
pub use listener::{Limits, Listener};
